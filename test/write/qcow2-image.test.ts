import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readFully } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { WritableQcow2 } from '../../src/write/qcow2/qcow2-image.ts';
import { checkQcow2 } from '../oracle/qcow2-check.ts';
import { clusterSize, makeDisk, readDisk, writesInPlace } from './qcow2-disk.ts';

const named = (name: string) => ({ name, dateSeconds: 1, dateNanoseconds: 2, vmClock: 3n });
const bytesOf = (file: MemoryFile) => {
  const bytes = Buffer.alloc(file.size);
  file.read(bytes, 0);
  return bytes;
};
const someDisk = () => makeDisk({ clusters: 100, allocated: [0, 1, 2, 63, 64, 99] });
const state = Uint8Array.from({ length: 70 * clusterSize + 17 }, (_, i) => i * 31 + (i >> 9));
const found = (image: WritableQcow2, name: string) => {
  const snapshot = image.find(name);
  if (snapshot === undefined) throw new Error(`no snapshot ${name}`);
  return snapshot;
};

/** A file that keeps what was written in order, and where it was synced. */
class Journal extends MemoryFile {
  readonly steps: ({ bytes: Uint8Array; at: number } | 'sync')[] = [];

  override write(bytes: Uint8Array, position: number): void {
    this.steps?.push({ bytes: bytes.slice(), at: position });
    super.write(bytes, position);
  }

  override async sync(): Promise<void> {
    this.steps.push('sync');
  }
}

describe('a qcow2 image', () => {
  it('keeps a VM state behind the disk, and the disk as it was', async () => {
    const file = new MemoryFile('disk', someDisk());
    const image = await WritableQcow2.open(file);
    const made = await image.save(named('one'), async (sink) => {
      for (let at = 0; at < state.length; at += 1000) await sink.write(state.subarray(at, at + 1000));
    });
    expect(made).toMatchObject({ id: '1', name: 'one', vmStateSize: state.length, diskSize: 100 * clusterSize });
    expect(checkQcow2(bytesOf(file))).toEqual([]);
    expect(readDisk(bytesOf(file)).equals(readDisk(someDisk()))).toBe(true);
    const again = await WritableQcow2.open(file);
    expect(again.snapshots).toEqual([made]);
    const source = again.vmState(found(again, 'one'));
    const read = new Uint8Array(state.length);
    if (source !== undefined) await readFully(source, read, 0);
    expect(Buffer.compare(read, state)).toBe(0);
    expect(await again.save(named('two'))).toMatchObject({ id: '2', vmStateSize: 0 });
    expect(again.vmState(found(again, 'two'))).toBeUndefined();
  });

  it('lets no guest write to what a snapshot holds, and lets it write again when that is gone', async () => {
    const file = new MemoryFile('disk', someDisk());
    const image = await WritableQcow2.open(file);
    expect(writesInPlace(bytesOf(file), 1)).toBe(true);
    await image.save(named('one'));
    expect(writesInPlace(bytesOf(file), 1)).toBe(false);
    await image.delete(found(image, 'one'));
    expect(writesInPlace(bytesOf(file), 1)).toBe(true);
    expect(checkQcow2(bytesOf(file))).toEqual([]);
  });

  it('has no errors and no leaks after any snapshots', async () => {
    const step = fc.record({ kind: fc.constantFrom('save', 'state', 'load', 'delete'), pick: fc.nat(5) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const file = new MemoryFile('disk', someDisk());
        const image = await WritableQcow2.open(file);
        let count = 0;
        for (const { kind, pick } of steps) {
          const chosen = image.snapshots[pick % Math.max(1, image.snapshots.length)];
          if (kind === 'save') await image.save(named(`s${count++}`));
          else if (kind === 'state') await image.save(named(`s${count++}`), async (sink) => sink.write(state));
          else if (chosen !== undefined) await (kind === 'load' ? image.load(chosen) : image.delete(chosen));
          expect(checkQcow2(bytesOf(file))).toEqual([]);
        }
        expect(readDisk(bytesOf(file)).equals(readDisk(someDisk()))).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('is whole whenever it is killed, before the change or after it', async () => {
    const before = new MemoryFile('disk', someDisk());
    const prepared = await WritableQcow2.open(before);
    await prepared.save(named('old'), async (sink) => sink.write(state));
    const start = bytesOf(before);
    for (const change of ['save', 'load', 'delete'] as const) {
      const file = new Journal('disk', start);
      file.steps.length = 0;
      const image = await WritableQcow2.open(file);
      if (change === 'save') await image.save(named('new'), async (sink) => sink.write(state));
      else await image[change](found(image, 'old'));
      const synced = file.steps.indexOf('sync');
      expect(synced).toBeGreaterThan(3);
      const after = bytesOf(file);
      for (let cut = 0; cut <= file.steps.length; cut++) {
        // What was not synced may be lost: all of it, and each other write.
        for (const keeps of [() => true, () => false, (i: number) => i % 2 === 0]) {
          const left = new MemoryFile('disk', start);
          for (const [i, step] of file.steps.slice(0, cut).entries()) {
            if (step !== 'sync' && (keeps(i) || (i < synced && cut > synced))) left.write(step.bytes, step.at);
          }
          const bytes = bytesOf(left);
          expect(checkQcow2(bytes)).toEqual([]);
          const listed = (await WritableQcow2.open(left)).snapshots.map(({ name }) => name).join();
          const whole = (await WritableQcow2.open(new MemoryFile('after', after))).snapshots.map(({ name }) => name);
          expect(['old', whole.join()]).toContain(listed);
        }
      }
    }
  });

  it('is as it was, and as long, if the VM state cannot be had', async () => {
    const file = new MemoryFile('disk', someDisk());
    const image = await WritableQcow2.open(file);
    const failing = image.save(named('one'), async (sink) => {
      await sink.write(new Uint8Array(3 << 20));
      throw new Error('no guest');
    });
    await expect(failing).rejects.toThrow('no guest');
    expect(bytesOf(file).equals(someDisk())).toBe(true);
  });

  it('grows its refcounts with a state of several MiB', async () => {
    const file = new MemoryFile('disk', someDisk());
    const image = await WritableQcow2.open(file);
    await image.save(named('large'), async (sink) => sink.write(new Uint8Array(12 << 20).fill(7)));
    const bytes = bytesOf(file);
    // 128 KiB for each refcount block, 64 of them in a table of one cluster.
    expect(bytes.readUInt32BE(56)).toBe(2);
    expect(checkQcow2(bytes)).toEqual([]);
  });

  it('that keeps dirty bitmaps takes snapshots, but loads none', async () => {
    const file = new MemoryFile('disk', someDisk());
    const image = await WritableQcow2.open(file);
    await image.keepBitmaps([{ name: 'b', granularity: 65536, isAuto: true, isInUse: false, bits: new Uint8Array(1) }]);
    await image.save(named('one'));
    expect(bytesOf(file)[95]).toBe(1);
    const before = bytesOf(file);
    await expect(image.load(found(image, 'one'))).rejects.toMatchObject({ code: 'unsupported' });
    expect(bytesOf(file).equals(before)).toBe(true);
  });

  const damaged = (at: number, value: number) => {
    const bytes = someDisk();
    bytes[at] = value;
    return new MemoryFile('disk', bytes);
  };
  it.each([
    ['encryption', 35, 2, 'unsupported', 'encrypted (LUKS)'],
    ['an external data file', 79, 4, 'unsupported', 'keeps its data in another file'],
    ['an unknown feature', 79, 32, 'unsupported', 'incompatible features 0x20'],
    ['a mark of damage', 79, 2, 'unclean-image', 'marked corrupt'],
    ['a mark of use', 79, 1, 'unclean-image', 'marked dirty'],
  ])('with %s is refused', async (_, at, value, code, message) => {
    const error = await WritableQcow2.open(damaged(at, value)).then(
      () => undefined,
      (reason) => reason,
    );
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
  });

  it.each([
    ['too low a refcount', 2 * clusterSize + 2 * 7 + 1, 0, 'bad-disk-image', 'its refcount: the image is damaged'],
    ['an L1 table beyond its end', 44, 1, 'truncated', 'bytes at'],
  ])('with %s is not changed', async (_, at, value, code, message) => {
    const file = damaged(at, value);
    const bytes = bytesOf(file);
    const image = await WritableQcow2.open(file);
    await expect(image.save(named('one'))).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
    expect(bytesOf(file).equals(bytes)).toBe(true);
  });
});
