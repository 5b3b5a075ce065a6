import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { maxRamBytes } from '../../src/vm/ram-block.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize } from '../../src/wire/ram-section.ts';
import {
  blockList,
  capabilities,
  command,
  configuration,
  counted,
  EOF,
  EOS,
  end,
  FLUSH,
  header,
  join,
  KIB4,
  none,
  part,
  start,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { codesOf, decode, decodeChunked, errorOf, itemsOf, ofKind, pagesOf } from './decoding.ts';

/** A stream whose RAM consists of this list. */
const withList = (list: Uint8Array, before: Uint8Array = none): Uint8Array =>
  join(before, start(7, 'ram', 4, list, EOS), end(7, EOS), EOF);
const listAt = none.length + 17;
const blocksOf = (bytes: Uint8Array) => ofKind(itemsOf(bytes), 'block').map(({ block }) => block);
const MIB2 = 2 ** 21;

describe('the RAM block list', () => {
  it('gives the blocks in order, then their sum', () => {
    const items = itemsOf(withList(blockList(['pc.ram', 3 * KIB4], ['/rom@etc/acpi/tables', KIB4])));
    expect(ofKind(items, 'block').map(({ block }) => block)).toEqual([
      { index: 0, idstr: 'pc.ram', usedLength: 3 * KIB4, pageSize: KIB4 },
      { index: 1, idstr: '/rom@etc/acpi/tables', usedLength: KIB4, pageSize: KIB4 },
    ]);
    expect(ofKind(items, 'blocks-end')).toEqual([
      { kind: 'blocks-end', totalBytes: 4 * KIB4, pageSizeFrom: 'assumed' },
    ]);
  });

  it('accepts a list without blocks, and an empty block before another', () => {
    expect(blocksOf(withList(blockList()))).toEqual([]);
    expect(blocksOf(withList(blockList(['empty', 0], ['ram', KIB4])))).toHaveLength(2);
  });

  it('accepts the largest guest', () => {
    const [block] = blocksOf(withList(blockList(['ram', maxRamBytes])));
    expect(block?.usedLength).toBe(2 ** 46);
  });

  it('accepts a name of 255 bytes that is not ASCII', () => {
    const name = '\u00ff'.repeat(255);
    const list = join(u64(KIB4 + 4), [255], Buffer.from(name, 'latin1'), u64(KIB4));
    expect(blocksOf(withList(list)).map(({ idstr }) => idstr)).toEqual([name]);
  });

  it('encodes what it decodes', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(fc.string({ minLength: 1, maxLength: 40, unit: 'binary-ascii' }), fc.nat(1 << 20)), {
          selector: ([name]) => name,
          maxLength: 20,
        }),
        (blocks) => {
          // A block without bytes after the last other one is not read, because the sum is reached.
          const sized = blocks.map(([name, pages]): [string, number] => [name, (pages + 1) * KIB4]);
          const out = new ByteWriter();
          encodeMemSize(
            out,
            sized.reduce((sum, [, length]) => sum + length, 0),
          );
          for (const [name, length] of sized) encodeBlockEntry(out, name, length);
          expect(blocksOf(withList(out.bytes())).map(({ idstr, usedLength }) => [idstr, usedLength])).toEqual(sized);
        },
      ),
      { numRuns: 30 },
    );
    const out = new ByteWriter();
    encodeEos(out);
    expect([...out.bytes()]).toEqual(EOS);
  });

  const entry = (name: string, length: number | bigint) => join(counted(name), u64(length));
  const rejected: [string, Uint8Array, string][] = [
    ['blocks beyond their sum', join(u64(KIB4 + 4), entry('x', 2 * KIB4)), 'bad-block-list'],
    [
      'a second block beyond the sum',
      join(u64(3 * KIB4 + 4), entry('x', KIB4), entry('y', 3 * KIB4)),
      'bad-block-list',
    ],
    ['half a page', blockList(['x', 2048], ['y', 2048]), 'bad-block-list'],
    ['two blocks of one name', blockList(['x', KIB4], ['x', KIB4]), 'bad-block-list'],
    ['a block without a name', blockList(['', KIB4]), 'bad-block-list'],
    ['a page record in place of the list', zeroPage(0, 'ram'), 'bad-block-list'],
    ['EOS in place of the list', new Uint8Array(), 'bad-block-list'],
    ['a sync in place of the list', join(FLUSH, blockList(['x', KIB4])), 'bad-block-list'],
    ['a list word with another flag', join(u64(KIB4 + 0x24), entry('x', KIB4)), 'bad-block-list'],
    ['a guest over 64 TiB', blockList(['x', maxRamBytes + KIB4]), 'limit-exceeded'],
    ['a guest of 2^63 bytes', join(u64(2n ** 63n + 4n), entry('x', 2n ** 63n)), 'limit-exceeded'],
    ['a block of 2^64 - 4096 bytes', join(u64(KIB4 + 4), entry('x', 2n ** 64n - 4096n)), 'limit-exceeded'],
  ];
  it.each(rejected)('refuses %s', (_, list, code) => {
    expect(errorOf(withList(list)).code).toBe(code);
  });

  it('refuses a second list', () => {
    const list = start(7, 'ram', 4, blockList(['ram', KIB4]), EOS);
    expect(errorOf(join(none, list, list))).toMatchObject({
      code: 'bad-block-list',
      place: { offset: none.length + list.length + 17, section: 'ram' },
    });
  });

  it('refuses more than 8192 blocks, even if they have no RAM', () => {
    const entries = Array.from({ length: 8193 }, (_, i) => entry(`block ${i}`, 0));
    const bytes = join(none, start(7, 'ram', 4, join(u64(KIB4 + 4), ...entries, entry('ram', KIB4)), EOS), EOF);
    expect(decode(bytes.subarray(0, listAt + 100)).error?.code).toBe('truncated');
    // With one chunk size only, because this takes long.
    const items: unknown[] = [];
    expect(() => items.push(...itemsOfWhole(bytes))).toThrow(/at most 8192/);
  });

  it('reports every cut in the list as truncated', () => {
    const bytes = join(none, start(7, 'ram', 4, blockList(['pc.ram', KIB4], ['rom', KIB4]), EOS));
    for (let length = none.length + 17; length < bytes.length - 5; length++) {
      expect(errorOf(bytes.subarray(0, length)), `${length} bytes`).toMatchObject({
        code: 'truncated',
        place: { offset: length },
      });
    }
  });

  it('ends when the sum is reached: syncs and EOS may follow', () => {
    const bytes = join(none, start(7, 'ram', 4, blockList(['ram', KIB4]), FLUSH, FLUSH, EOS), part(7, FLUSH, EOS), EOF);
    expect(ofKind(itemsOf(bytes), 'sync').map(({ offset }) => offset)).toHaveLength(3);
  });

  it('gives pages that are in the START itself', () => {
    const bytes = join(none, start(7, 'ram', 4, blockList(['ram', KIB4]), zeroPage(0, 'ram'), EOS), EOF);
    expect(pagesOf(itemsOf(bytes))).toEqual(['ram:0 zero']);
  });
});

function itemsOfWhole(bytes: Uint8Array) {
  const { items, error } = decodeChunked(bytes, bytes.length);
  if (error !== undefined) throw error;
  return items;
}

describe('host page sizes in the block list', () => {
  const advise = (...sizes: number[]) => command(3, u64(sizes.reduce((sum, size) => sum | size, 0)), u64(KIB4));
  const list = blockList(['small', KIB4], ['huge', MIB2, u64(MIB2)], ['other', KIB4]);

  it('reads the word if the advice contains its size', () => {
    const blocks = blocksOf(withList(list, join(none, advise(KIB4, MIB2))));
    expect(blocks.map(({ idstr, hostPageSize }) => [idstr, hostPageSize])).toEqual([
      ['small', undefined],
      ['huge', MIB2],
      ['other', undefined],
    ]);
  });

  it('reads the word of the last block, before EOS or a sync', () => {
    const last = blockList(['small', KIB4], ['huge', MIB2, u64(MIB2)]);
    expect(blocksOf(withList(last, join(none, advise(KIB4, MIB2))))[1]?.hostPageSize).toBe(MIB2);
    const synced = blockList(['small', KIB4], ['huge', MIB2]);
    expect(blocksOf(withList(join(synced, FLUSH), join(none, advise(KIB4, MIB2))))[1]?.hostPageSize).toBeUndefined();
  });

  it('reads words of two sizes', () => {
    const two = blockList(['a', 2 ** 30, u64(2 ** 30)], ['b', MIB2, u64(MIB2)]);
    const blocks = blocksOf(withList(two, join(none, advise(KIB4, MIB2, 2 ** 30))));
    expect(blocks.map(({ hostPageSize }) => hostPageSize)).toEqual([2 ** 30, MIB2]);
  });

  it.each([
    ['without advice', none],
    ['with empty advice', join(none, command(3))],
    ['with advice of 4096 only', join(none, advise(KIB4))],
    ['with advice of another size', join(none, advise(KIB4, 65536))],
  ])('takes the word for a block name %s', (_, before) => {
    expect(errorOf(withList(list, before)).code).toBe('bad-block-list');
  });
});

describe('guest addresses in the block list', () => {
  const shared = join(header, configuration('pc', capabilities('x-ignore-shared')));

  it('are read with the capability x-ignore-shared', () => {
    const list = blockList(['m', KIB4, u64(0)], ['pc.bios', KIB4, u64(0xfffc0000)], ['x', KIB4, u64(2n ** 64n - 1n)]);
    expect(blocksOf(withList(list, shared)).map(({ guestAddress }) => guestAddress)).toEqual([
      0n,
      0xfffc0000n,
      2n ** 64n - 1n,
    ]);
  });

  it('follow the host page size', () => {
    const before = join(shared, command(3, u64(MIB2 + KIB4), u64(KIB4)));
    const [block] = blocksOf(withList(blockList(['m', MIB2, u64(MIB2), u64(0x1_0000_1234)]), before));
    expect(block).toMatchObject({ hostPageSize: MIB2, guestAddress: 0x1_0000_1234n });
  });

  it('are absent without it', () => {
    const items = itemsOf(withList(blockList(['m', KIB4])));
    expect(ofKind(items, 'block')[0]?.block).not.toHaveProperty('guestAddress');
    expect(codesOf(items)).toEqual([]);
  });
});
