import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { type BitmapMapping, receiveBitmaps, sendBitmaps } from '../../src/migrate/bitmap-migration.ts';
import { BlockNode, BlockNodes } from '../../src/migrate/block-node.ts';
import type { RawSection } from '../../src/vm/saved-vm.ts';

const MiB = 1 << 20;

/** Raw disks of 5 and 100 MiB. */
async function makeDisks(): Promise<BlockNodes> {
  const make = (id: string, size: number) => {
    const store = new MemoryFile(id);
    store.truncate(size);
    return BlockNode.open({ id, path: id, format: 'raw', store, allocatedBytes: () => 0 });
  };
  return new BlockNodes([await make('small', 5 * MiB), await make('large', 100 * MiB)]);
}

/** Disks with bitmaps: `a` and a disabled `b` of the small one, and `c` of the large one, with more than a chunk. */
async function makeSource(): Promise<BlockNodes> {
  const nodes = await makeDisks();
  const [small, large] = nodes.list as [BlockNode, BlockNode];
  small.addBitmap('a').mark(MiB, MiB + 300_000);
  small.addBitmap('b', { isEnabled: false, granularity: 4096 }).mark(4096, 4097);
  const c = large.addBitmap('c', { granularity: 512 });
  c.mark(0, 1);
  c.mark(50 * MiB + 3, 60 * MiB);
  c.mark(100 * MiB - 1, 100 * MiB);
  return nodes;
}

const bitsOf = (nodes: BlockNodes) =>
  nodes.list.flatMap((node) =>
    [...node.bitmaps]
      .sort((x, y) => (x.name < y.name ? -1 : 1))
      .map(({ name, granularity, isEnabled, isPersistent, isBusy, bits }) => ({
        ...{
          node: node.id,
          name,
          granularity,
          isEnabled,
          isPersistent,
          isBusy,
          bits: Buffer.from(bits).toString('hex'),
        },
      })),
  );

describe('dirty bitmaps', () => {
  it('arrive as they were, bit for bit', async () => {
    const source = await makeSource();
    const under = sendBitmaps(source);
    expect(under.sections.map(({ kind }) => kind)).toEqual(['start', 'end']);
    const target = await makeDisks();
    expect(receiveBitmaps(target, under.sections)).toEqual({ others: [], messages: [] });
    under.release();
    expect(bitsOf(target)).toEqual(bitsOf(source));
    expect(target.get('large')?.bitmap('c').count).toBe(512 + 10 * MiB + 512);
  });

  it('are busy until they have been sent', async () => {
    const source = await makeSource();
    const under = sendBitmaps(source);
    const busy = "Bitmap 'b' is currently in use by another operation and cannot be used";
    expect(() => source.get('small')?.bitmap('b').requireIdle()).toThrow(busy);
    expect(() => sendBitmaps(source)).toThrow(busy);
    under.release();
    expect(() => sendBitmaps(source)).not.toThrow();
  });

  it('need no section if there are none', async () => {
    expect(sendBitmaps(await makeDisks()).sections).toEqual([]);
  });

  const mapping = (alias: string, name = 'A'): BitmapMapping => [
    { 'node-name': 'small', alias, bitmaps: [{ name: 'a', alias: name, transform: { persistent: true } }] },
    { 'node-name': 'nowhere', alias: 'n', bitmaps: [{ name: 'x', alias: 'x' }] },
  ];

  it('are those of a mapping, under its names', async () => {
    const source = await makeSource();
    const target = await makeDisks();
    const back = [{ 'node-name': 'large', alias: 'disk', bitmaps: [{ name: 'z', alias: 'A' }] }];
    const large = await makeDisks();
    expect(receiveBitmaps(target, sendBitmaps(source, { mapping: mapping('small') }).sections).messages).toEqual([]);
    expect(bitsOf(target)).toMatchObject([{ node: 'small', name: 'A', isPersistent: true }]);
    for (const each of source.list) for (const bitmap of each.bitmaps) bitmap.isBusy = false;
    receiveBitmaps(large, sendBitmaps(source, { mapping: mapping('disk') }).sections, back);
    expect(bitsOf(large)).toMatchObject([{ node: 'large', name: 'z', isPersistent: true }]);
  });

  const sent = async (options?: Parameters<typeof sendBitmaps>[1]) => sendBitmaps(await makeSource(), options).sections;

  it.each([
    ['an unknown node', mapping('elsewhere'), undefined, "Cannot find device='elsewhere' nor node-name='elsewhere'"],
    ['an unknown alias of a node', mapping('elsewhere'), mapping('small'), "Error: Unknown node alias 'elsewhere'"],
    [
      'an unknown alias of a bitmap',
      mapping('nA', 'bA'),
      mapping('nA', 'bB'),
      "Error: Unknown bitmap alias 'bA' on node 'small' (alias 'nA')",
    ],
  ])('with %s are dropped', async (_, out, back, message) => {
    const target = await makeDisks();
    expect(receiveBitmaps(target, await sent({ mapping: out }), back)).toEqual({ others: [], messages: [message] });
    expect(bitsOf(target)).toEqual([]);
  });

  it('that exist already fail the migration, and the others are removed', async () => {
    const target = await makeDisks();
    target.get('small')?.addBitmap('a');
    const message = "Bitmap with the same name ('a') already exists on destination";
    const sections = await sent();
    expect(() => receiveBitmaps(target, sections)).toThrow(message);
    expect(bitsOf(target).map(({ name }) => name)).toEqual(['a']);
  });

  it('that did not arrive as a whole are dropped', async () => {
    const target = await makeDisks();
    receiveBitmaps(target, (await sent()).slice(0, 1));
    expect(bitsOf(target)).toEqual([]);
  });

  it('with a name that is too long are not sent', async () => {
    const nodes = await makeDisks();
    nodes.list[0]?.addBitmap('b'.repeat(256));
    const message = `Cannot migrate bitmap '${'b'.repeat(256)}' on node 'small': Name is longer than 255 bytes`;
    expect(() => sendBitmaps(nodes)).toThrow(message);
    expect(nodes.list[0]?.bitmaps[0]?.isBusy).toBe(false);
  });

  it('go on with a guest that has no disks here, as do other sections', async () => {
    const other: RawSection = { kind: 'full', bytes: Uint8Array.of(4, 0, 0, 0, 9, 1, 0x61, 0, 0, 0, 0, 0, 0, 0, 1, 7) };
    const sections = [...(await sent()), other];
    expect(receiveBitmaps(new BlockNodes([]), sections).others).toEqual(sections);
    expect(receiveBitmaps(await makeDisks(), sections).others).toEqual([other]);
  });
});
