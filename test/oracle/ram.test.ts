import { deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  blockList,
  command,
  compressedPage,
  counted,
  deltaPage,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  start,
  u16,
  u64,
  zeroPage,
} from './build.ts';
import { pageOf, rejection } from './reading.ts';
import { SlowReaderError, slowRead } from './slow-reader.ts';

/** A page of 4 KiB that is zero except for some bytes. */
function pageWith(bytes: Record<number, number>): Uint8Array {
  const page = new Uint8Array(KIB4);
  for (const [at, value] of Object.entries(bytes)) page[Number(at)] = value;
  return page;
}

/** A stream with one block of 16 pages and these records in one PART. */
const withRecords = (...records: Uint8Array[]): Uint8Array =>
  join(none, ramStart, part(7, ...records, EOS), ramEnd, EOF);

describe('slow reader: RAM', () => {
  it('keeps CONTINUE across sections and blocks apart', () => {
    const bytes = join(
      none,
      start(7, 'ram', 4, blockList(['a', 2 * KIB4], ['b', 3 * KIB4]), FLUSH, EOS),
      part(7, normalPage(0, filled(1), 'a'), normalPage(0, filled(2), 'b'), EOS),
      part(7, EOS),
      part(7, normalPage(KIB4, filled(3)), FLUSH, zeroPage(KIB4, 'a'), EOS),
      end(7, normalPage(0, filled(4)), EOS),
      EOF,
    );
    const result = slowRead(bytes);
    expect(result.blocks.map((block) => [...block.last])).toEqual([
      [2, 1],
      [2, 2, 0],
    ]);
    expect(pageOf(result, 0, 0)).toEqual(filled(4));
    expect(pageOf(result, 0, 1)).toEqual(filled(2));
    expect(pageOf(result, 1, 1)).toEqual(filled(3));
  });

  it('uses the last record of a page', () => {
    const result = slowRead(
      withRecords(
        normalPage(0, filled(1), 'ram'),
        normalPage(KIB4, filled(2)),
        zeroPage(0),
        normalPage(KIB4, filled(3)),
      ),
    );
    expect(pageOf(result, 0)).toEqual(filled(0));
    expect(pageOf(result, 1)).toEqual(filled(3));
  });

  it('skips the page size word of blocks of huge pages', () => {
    const advise = command(3, u64(0x201000), u64(KIB4));
    const huge = join(none, advise, start(1, 'ram', 4, blockList(['a', KIB4], ['b', 1 << 21, u64(1 << 21)]), EOS));
    expect(slowRead(join(huge, EOF)).blocks.map((block) => block.idstr)).toEqual(['a', 'b']);
    const first = start(1, 'ram', 4, blockList(['b', 1 << 21, u64(1 << 21)], ['a', KIB4]), EOS);
    expect(slowRead(join(none, advise, first, EOF)).blocks.map((block) => block.idstr)).toEqual(['b', 'a']);
    // Never without ADVISE, nor if it lists only 4096.
    expect(rejection(join(none, first, EOF))).toMatch(/without a name/);
    expect(rejection(join(none, command(3, u64(KIB4), u64(KIB4)), first, EOF))).toMatch(/without a name/);
  });

  it('allows an empty block and an empty guest', () => {
    const list = start(1, 'ram', 4, blockList(['empty', 0], ['a', KIB4]), EOS);
    expect(slowRead(join(none, list, EOF)).blocks.map((block) => block.content.length)).toEqual([0, KIB4]);
    expect(slowRead(join(none, start(1, 'ram', 4, blockList(), EOS), EOF)).blocks).toEqual([]);
  });

  it('inflates compressed pages', () => {
    const page = pageWith({ 1: 1, 4095: 2 });
    const result = slowRead(withRecords(compressedPage(KIB4, new Uint8Array(deflateSync(page)), 'ram')));
    expect(pageOf(result, 1)).toEqual(page);
    expect(result.blocks[0]!.last[1]).toBe(2);
  });

  it('can hold a guest of a terabyte without pages', () => {
    const list = start(1, 'ram', 4, blockList(['ram', 2 ** 40]), EOS);
    expect(slowRead(join(none, list, part(1, zeroPage(0, 'ram'), EOS), EOF)).blocks[0]!.usedLength).toBe(2 ** 40);
  });

  const packed = new Uint8Array(deflateSync(filled(1)));
  const rejected: [string, Uint8Array, RegExp][] = [
    ['CONTINUE on the first page', withRecords(zeroPage(0)), /CONTINUE on the first page/],
    ['CONTINUE with EOS', withRecords(join(u64(0x30))), /CONTINUE without a page/],
    ['two kinds at once', withRecords(join(u64(0x0a), counted('ram'))), /0xa mean nothing/],
    ['HOOK', withRecords(join(u64(0x80))), /0x80 mean nothing/],
    ['FULL', withRecords(join(u64(0x01))), /0x1 mean nothing/],
    ['no flags', withRecords(join(u64(0x1000))), /0x0 mean nothing/],
    ['EOS with an address', withRecords(join(u64(0x1010))), /with an address/],
    ['a flush with an address', withRecords(join(u64(0x1200))), /with an address/],
    ['an unknown block', withRecords(zeroPage(0, 'rom')), /unknown block "rom"/],
    ['a page outside its block', withRecords(zeroPage(16 * KIB4, 'ram')), /outside its block/],
    ['a zero page filled with ones', withRecords(join(u64(2), counted('ram'), [1])), /filled with 1/],
    ['XBZRLE flag 2', withRecords(join(u64(0x40), counted('ram'), [2], u16(0))), /flag byte 2/],
    ['an XBZRLE page over 4096', withRecords(deltaPage(0, new Uint8Array(4097), 'ram')), /of 4097 bytes/],
    [
      'a compressed half page',
      withRecords(compressedPage(0, new Uint8Array(deflateSync(filled(1, 2048))), 'ram')),
      /size/,
    ],
    [
      'a compressed double page',
      withRecords(compressedPage(0, new Uint8Array(deflateSync(filled(1, 8192))), 'ram')),
      /inflate/,
    ],
    ['bytes behind a compressed page', withRecords(compressedPage(0, join(packed, [0]), 'ram')), /bytes behind/],
    ['a cut compressed page', withRecords(compressedPage(0, packed.subarray(0, -1), 'ram')), /does not inflate/],
    ['a list in a PART', withRecords(blockList(['x', KIB4])), /not the first record/],
    ['no list', join(none, start(7, 'ram', 4, EOS), EOF), /does not start with its block list/],
    ['a list too late', join(none, start(7, 'ram', 4, FLUSH, blockList(['x', KIB4]), EOS), EOF), /does not start/],
    [
      'two lists',
      join(none, ramStart, start(7, 'ram', 4, blockList(['x', KIB4]), EOS), EOF),
      /a second RAM block list/,
    ],
    ['a total too small', join(none, start(7, 'ram', 4, u64(0x1004), counted('x'), u64(0x2000), EOS)), /larger than/],
    ['half a page', join(none, start(7, 'ram', 4, blockList(['x', 2048], ['y', 2048]), EOS)), /no whole pages/],
    [
      'two blocks of one name',
      join(none, start(7, 'ram', 4, blockList(['x', KIB4], ['x', KIB4]), EOS)),
      /second RAM block/,
    ],
    ['a block without a name', join(none, start(7, 'ram', 4, blockList(['', KIB4]), EOS)), /without a name/],
    ['a guest over 64 TiB', join(none, start(7, 'ram', 4, blockList(['x', 2 ** 46 + KIB4]), EOS)), /guest of/],
  ];
  it.each(rejected)('rejects %s', (_, bytes, message) => {
    expect(rejection(bytes)).toMatch(message);
  });
});

describe('slow reader: XBZRLE', () => {
  const apply = (before: Uint8Array | undefined, ...deltas: string[]): Uint8Array => {
    const base = before === undefined ? zeroPage(KIB4, 'ram') : normalPage(0, before, 'ram');
    return pageOf(slowRead(withRecords(base, ...deltas.map((delta) => deltaPage(0, hex(delta))))), 0);
  };

  it('decodes the worked examples', () => {
    expect(apply(filled(0), '00 01 0a')).toEqual(pageWith({ 0: 0x0a }));
    expect(apply(filled(0), 'ff 1f 01 01')).toEqual(pageWith({ 4095: 1 }));
    expect(apply(filled(0), '64 02 aa bb c6 01 01 cc d2 1d 01 dd')).toEqual(
      pageWith({ 100: 0xaa, 101: 0xbb, 300: 0xcc, 4095: 0xdd }),
    );
    expect(apply(filled(0), '05 01 77 01 01 88')).toEqual(pageWith({ 5: 0x77, 7: 0x88 }));
    expect(apply(filled(0), `00 c8 01 ${'5a'.repeat(200)}`)).toEqual(join(filled(0x5a, 200), filled(0, 3896)));
  });

  it('applies deltas one after another to the page', () => {
    const expected = filled(7);
    expected.set([1, 2], 3);
    expected.set([3], 4);
    expect(apply(filled(7), '03 02 01 02', '04 01 03')).toEqual(expected);
  });

  it('treats a missing page as zeros', () => {
    expect(apply(undefined, '01 01 09')).toEqual(pageWith({ 1: 9 }));
  });

  it('leaves the page unchanged for an empty delta, and reads long forms of small counts', () => {
    expect(apply(filled(7), '')).toEqual(filled(7));
    expect(apply(filled(0), '83 00 01 09')).toEqual(pageWith({ 3: 9 }));
  });

  it.each([
    ['80 80', 'a count of three bytes'],
    ['00', 'half a pair'],
    ['05 01 77 00 01 88', 'an empty run in the middle'],
    ['05 00', 'no new bytes'],
    ['00 02 01', 'too few new bytes'],
    ['81 20 01 01', 'a start behind the page'],
    ['80 20 01 01', 'a byte behind the page'],
    ['05 01 77 05', 'equal bytes at the end'],
  ])('rejects %s: %s', (delta) => {
    expect(() => apply(filled(0), delta)).toThrow(SlowReaderError);
  });
});
