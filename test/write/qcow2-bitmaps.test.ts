/** Dirty bitmaps in a qcow2 image: kept, read, marked as in use, and gone without a leak. */
import { expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { BlockNode } from '../../src/migrate/block-node.ts';
import { type KeptBitmap, WritableQcow2 } from '../../src/write/qcow2/qcow2-image.ts';
import { checkQcow2 } from '../oracle/qcow2-check.ts';
import { clusterSize, makeDisk, readDisk } from './qcow2-disk.ts';

const someDisk = () => makeDisk({ clusters: 100, allocated: [0, 1, 2, 63, 64, 99] });
const bytesOf = (file: MemoryFile) => {
  const bytes = Buffer.alloc(file.size);
  file.read(bytes, 0);
  return bytes;
};
/** 100 clusters of the disk, one bit for each. */
const bits = (...set: number[]) => {
  const bytes = new Uint8Array(13);
  for (const bit of set) bytes[bit >> 3] = (bytes[bit >> 3] as number) | (1 << (bit & 7));
  return bytes;
};
const bitmap = (name: string, more: Partial<KeptBitmap> = {}): KeptBitmap => ({
  ...{ name, granularity: clusterSize, isAuto: true, isInUse: false, bits: bits(3, 99) },
  ...more,
});

it('keeps bitmaps, reads them again, and lets them go without a leak', async () => {
  const file = new MemoryFile('disk', someDisk());
  const image = await WritableQcow2.open(file);
  expect([image.hasBitmaps, await image.bitmaps()]).toEqual([false, []]);
  const kept = [bitmap('one'), bitmap('two', { isAuto: false, granularity: 65536, bits: Uint8Array.from([0]) })];
  await image.keepBitmaps(kept);
  expect(checkQcow2(bytesOf(file))).toEqual([]);
  const again = await WritableQcow2.open(file);
  expect(await again.bitmaps()).toEqual(kept);
  await again.keepBitmaps([bitmap('two', { granularity: 65536, bits: undefined }), bitmap('one', { bits: bits(7) })]);
  expect(checkQcow2(bytesOf(file))).toEqual([]);
  const third = await WritableQcow2.open(file);
  expect((await third.bitmaps()).map((each) => [each.name, each.isAuto, ...(each.bits ?? [])])).toEqual([
    ['two', true, 0],
    ['one', true, ...bits(7)],
  ]);
  // Snapshots come and go beside them.
  const made = await third.save({ name: 's', dateSeconds: 1, dateNanoseconds: 2, vmClock: 3n });
  expect(checkQcow2(bytesOf(file))).toEqual([]);
  await third.delete(made);
  await third.keepBitmaps([]);
  expect(checkQcow2(bytesOf(file))).toEqual([]);
  expect((await WritableQcow2.open(file)).hasBitmaps).toBe(false);
  expect(readDisk(bytesOf(file)).equals(readDisk(someDisk()))).toBe(true);
});

it('does not trust bitmaps that are in use, nor those of an image that another program wrote to', async () => {
  const file = new MemoryFile('disk', someDisk());
  const image = await WritableQcow2.open(file);
  await image.keepBitmaps([bitmap('one')]);
  await image.useBitmaps();
  expect(await (await WritableQcow2.open(file)).bitmaps()).toEqual([bitmap('one', { isInUse: true, bits: undefined })]);
  file.write(new Uint8Array(8), 88);
  expect((await WritableQcow2.open(file)).hasBitmaps).toBe(false);
});

it('keeps what is killed at any write whole: all bitmaps of before or after, or none', async () => {
  class Killed extends MemoryFile {
    left = Number.POSITIVE_INFINITY;
    override write(bytes: Uint8Array, position: number): void {
      if (this.left-- <= 0) throw new Error('killed');
      super.write(bytes, position);
    }
  }
  const before = new MemoryFile('disk', someDisk());
  await (await WritableQcow2.open(before)).keepBitmaps([bitmap('old')]);
  let isWhole = false;
  for (let writes = 0; !isWhole; writes++) {
    const file = new Killed('disk', bytesOf(before));
    const image = await WritableQcow2.open(file);
    file.left = writes;
    isWhole = await image.keepBitmaps([bitmap('new', { bits: bits(1) })]).then(
      () => true,
      () => false,
    );
    file.left = Number.POSITIVE_INFINITY;
    const found = (await (await WritableQcow2.open(file)).bitmaps()).map(({ name }) => name);
    expect([['old'], ['new'], []]).toContainEqual(found);
    expect(readDisk(bytesOf(file)).equals(readDisk(someDisk()))).toBe(true);
    // Leaks are all that may be wrong.
    for (const problem of checkQcow2(bytesOf(file))) expect(problem).toMatch(/used 0, refcount 1/);
  }
});

it('moves the name of a backing file behind the extension', async () => {
  const disk = someDisk();
  disk.writeBigUInt64BE(112n, 8);
  disk.writeUInt32BE(4, 16);
  disk.write('base', 112);
  const file = new MemoryFile('disk', disk);
  await (await WritableQcow2.open(file)).keepBitmaps([bitmap('one')]);
  const bytes = bytesOf(file);
  const at = Number(bytes.readBigUInt64BE(8));
  expect(bytes.subarray(at, at + 4).toString()).toBe('base');
  expect(await (await WritableQcow2.open(file)).bitmaps()).toEqual([bitmap('one')]);
});

it('is a node of a VM: bitmaps are in use while it runs, and can only be removed after a crash', async () => {
  const file = new MemoryFile('disk', someDisk());
  const open = async () => {
    const node = await BlockNode.open({ id: 'd', path: 'disk', store: file, allocatedBytes: () => 0 });
    await node.loadBitmaps();
    return node;
  };
  const node = await open();
  node.addBitmap('one', { granularity: 512, isPersistent: true }).mark(512, 1024);
  node.addBitmap('off', { granularity: 512, isPersistent: true, isEnabled: false });
  node.addBitmap('temporary');
  await node.keepBitmaps();
  const second = await open();
  expect(second.bitmaps.map(({ name, isEnabled, count }) => [name, isEnabled, count])).toEqual([
    ['one', true, 512],
    ['off', false, 0],
  ]);
  // It crashes.
  const third = await open();
  expect(third.bitmaps.every(({ isInconsistent, isEnabled }) => isInconsistent && !isEnabled)).toBe(true);
  expect(() => third.bitmap('one').requireUsable()).toThrow("Bitmap 'one' is inconsistent and cannot be used");
  await third.forgetBitmap(third.bitmap('one'));
  expect((await (await WritableQcow2.open(file)).bitmaps()).map(({ name }) => name)).toEqual(['off']);
  await third.keepBitmaps();
  expect(checkQcow2(bytesOf(file))).toEqual([]);
  expect((await open()).bitmaps.map(({ name, isInconsistent }) => [name, isInconsistent])).toEqual([['off', true]]);
});
