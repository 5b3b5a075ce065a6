import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  blockList,
  compressedPage,
  configuration,
  counted,
  deltaPage,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  header,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  start,
  subsection,
  u16,
  u32,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { codesOf, decode, decodeChunked, errorOf, expectSame, itemsOf, ofKind, pagesOf } from './decoding.ts';

/** A stream with one block of 16 pages and these records in one PART. */
const withRecords = (...records: Uint8Array[]): Uint8Array =>
  join(none, ramStart, part(7, ...records, EOS), ramEnd, EOF);
/** Offset of the first record of `withRecords`. */
const recordsAt = none.length + ramStart.length + 5;

/** A stream with blocks `a` of 4 pages and `b` of 3. */
const twoBlocks = start(7, 'ram', 4, blockList(['a', 4 * KIB4], ['b', 3 * KIB4]), EOS);

describe('RAM records', () => {
  it('decodes every kind, with its offset, size and payload', () => {
    const data = filled(7);
    const delta = hex('00 01 0a');
    const packed = hex('789c 0102 03');
    const bytes = withRecords(
      zeroPage(0, 'ram'),
      normalPage(KIB4, data),
      deltaPage(2 * KIB4, delta),
      compressedPage(3 * KIB4, packed),
      zeroPage(15 * KIB4),
    );
    let offset = recordsAt;
    const record = (page: number, is: string, size: number, payload: Uint8Array) => {
      const item = { kind: 'page', block: 'ram', page, is, offset, size, payload };
      offset += size;
      return item;
    };
    expect(ofKind(itemsOf(bytes), 'page')).toEqual([
      record(0, 'zero', 8 + 4 + 1, new Uint8Array()),
      record(1, 'data', 8 + KIB4, data),
      record(2, 'delta', 8 + 3 + 3, delta),
      record(3, 'compressed', 8 + 4 + 5, packed),
      record(15, 'zero', 9, new Uint8Array()),
    ]);
  });

  it.each([
    ['zero', zeroPage(KIB4, 'ram')],
    ['data', normalPage(KIB4, filled(1), 'ram')],
    ['delta', deltaPage(KIB4, '', 'ram')],
    ['delta', deltaPage(KIB4, new Uint8Array(KIB4), 'ram')],
    ['compressed', compressedPage(KIB4, new Uint8Array(), 'ram')],
    ['compressed', compressedPage(KIB4, new Uint8Array(KIB4 + 1024), 'ram')],
  ])('decodes a %s record that names its block', (is, record) => {
    expect(ofKind(itemsOf(withRecords(record)), 'page')).toMatchObject([{ is, page: 1, size: record.length }]);
  });

  it('remembers the block of CONTINUE across sections, EOS and syncs', () => {
    const bytes = join(
      none,
      twoBlocks,
      part(7, zeroPage(0, 'a'), zeroPage(0, 'b'), EOS),
      part(7, EOS),
      part(7, FLUSH, zeroPage(KIB4), EOS),
      end(7, zeroPage(2 * KIB4), EOS),
      EOF,
    );
    expect(pagesOf(itemsOf(bytes))).toEqual(['a:0 zero', 'b:0 zero', 'b:1 zero', 'b:2 zero']);
  });

  it('puts records of different blocks into separate batches', () => {
    const bytes = join(none, twoBlocks, part(7, zeroPage(0, 'a'), zeroPage(KIB4), zeroPage(0, 'b'), EOS), EOF);
    for (const capacity of [1, 2, 3, 64]) {
      expect(pagesOf(itemsOf(bytes, { capacity }))).toEqual(['a:0 zero', 'a:1 zero', 'b:0 zero']);
    }
  });

  it('ends a pass where the scan moves backward: to an earlier page, the same page, or an earlier block', () => {
    const passes = (...records: Uint8Array[]) => pagesOf(itemsOf(join(none, twoBlocks, part(7, ...records, EOS), EOF)));
    expect(passes(zeroPage(KIB4, 'a'), zeroPage(0))).toEqual(['a:1 zero', '|', 'a:0 zero']);
    expect(passes(zeroPage(KIB4, 'a'), zeroPage(KIB4))).toEqual(['a:1 zero', '|', 'a:1 zero']);
    expect(passes(zeroPage(KIB4, 'b'), zeroPage(2 * KIB4, 'a'))).toEqual(['b:1 zero', '|', 'a:2 zero']);
    expect(passes(zeroPage(2 * KIB4, 'a'), zeroPage(0, 'b'))).toEqual(['a:2 zero', 'b:0 zero']);
  });

  it('ends a pass across sections', () => {
    const bytes = join(none, ramStart, part(7, zeroPage(KIB4, 'ram'), EOS), end(7, zeroPage(0), EOS), EOF);
    expect(pagesOf(itemsOf(bytes))).toEqual(['ram:1 zero', '|', 'ram:0 zero']);
  });

  it('splits a full batch, and loses nothing', () => {
    const records = Array.from({ length: 16 }, (_, page) => zeroPage(page * KIB4, page === 0 ? 'ram' : undefined));
    const expected = records.map((_, page) => `ram:${page} zero`);
    for (const capacity of [1, 3, 15, 16, 17]) {
      expect(pagesOf(itemsOf(withRecords(...records), { capacity })), `capacity ${capacity}`).toEqual(expected);
    }
  });

  it('decodes the same wherever a window ends', () => {
    const bytes = withRecords(
      normalPage(0, filled(1), 'ram'),
      zeroPage(KIB4),
      deltaPage(2 * KIB4, hex('05 01 77 01 01 88'), 'ram'),
      compressedPage(3 * KIB4, hex('0102')),
      zeroPage(0),
    );
    const whole = decodeChunked(bytes, bytes.length);
    expect(ofKind(whole.items, 'page')).toHaveLength(5);
    // The first chunk ends at every byte of the records in turn. The second has the rest, or is split again.
    for (
      let chunk = recordsAt;
      chunk < bytes.length;
      chunk += chunk < recordsAt + 40 || chunk > recordsAt + 4090 ? 1 : 61
    ) {
      expectSame(decodeChunked(bytes, chunk), whole, `chunks of ${chunk}`);
    }
  });

  it('reports every cut inside a record as truncated, at the end of the bytes', () => {
    const bytes = withRecords().subarray(0, recordsAt);
    const records = join(
      deltaPage(2 * KIB4, hex('05 01 77'), 'ram'),
      compressedPage(3 * KIB4, hex('0102')),
      zeroPage(4 * KIB4),
      EOS,
    );
    for (let length = 0; length < records.length; length++) {
      const cut = join(bytes, records.subarray(0, length));
      expect(errorOf(cut), `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: cut.length } });
    }
  });

  it('gives all whole records before a cut', () => {
    const bytes = withRecords(zeroPage(0, 'ram'), zeroPage(KIB4), normalPage(2 * KIB4, filled(1)));
    const { items, error } = decode(bytes.subarray(0, recordsAt + 13 + 9 + 8 + KIB4 - 1));
    expect(pagesOf(items)).toEqual(['ram:0 zero', 'ram:1 zero']);
    expect(error).toMatchObject({ code: 'truncated' });
  });

  it('reports a page beyond its block and continues', () => {
    const bytes = withRecords(
      zeroPage(0, 'ram'),
      normalPage(16 * KIB4, filled(3)),
      zeroPage(1000 * KIB4),
      zeroPage(KIB4),
    );
    const items = itemsOf(bytes);
    expect(pagesOf(items)).toEqual(['ram:0 zero', 'ram:1 zero']);
    expect(ofKind(items, 'finding').map(({ finding }) => finding)).toEqual([
      expect.objectContaining({
        severity: 'error',
        code: 'page-out-of-range',
        place: {
          source: 'test.bin',
          offset: recordsAt + 13,
          coordinate: 'file',
          section: 'ram',
          block: 'ram',
          page: 16,
        },
      }),
      expect.objectContaining({ place: expect.objectContaining({ page: 1000 }) }),
    ]);
  });

  it('reports a page at 2^63', () => {
    expect(codesOf(itemsOf(withRecords(join(u64(2n ** 63n + 2n), counted('ram'), [0]))))).toEqual([
      'page-out-of-range',
    ]);
  });

  it('reports a zero page with another fill byte, and continues', () => {
    const bytes = withRecords(zeroPage(0, 'ram'), join(u64(KIB4 + 0x22), [0xff]), zeroPage(2 * KIB4));
    const items = itemsOf(bytes);
    expect(pagesOf(items)).toEqual(['ram:0 zero', 'ram:2 zero']);
    const [noted] = ofKind(items, 'finding');
    expect(noted?.finding).toMatchObject({ code: 'bad-zero-page', place: { offset: recordsAt + 13, page: 1 } });
  });

  it('remembers the block named by a record with a finding', () => {
    const bytes = join(none, twoBlocks, part(7, zeroPage(0, 'a'), zeroPage(9 * KIB4, 'b'), zeroPage(KIB4), EOS), EOF);
    expect(pagesOf(itemsOf(bytes))).toEqual(['a:0 zero', 'b:1 zero']);
  });

  it('gives a finding between the pages before it and those after it', () => {
    const kinds = itemsOf(withRecords(zeroPage(0, 'ram'), zeroPage(16 * KIB4), zeroPage(KIB4))).map(({ kind }) => kind);
    const from = kinds.indexOf('page');
    expect(kinds.slice(from, from + 3)).toEqual(['page', 'finding', 'page']);
  });

  it.each([1024, 2048, 8192, 16384, 65536])('decodes pages of %i bytes', (pageSize) => {
    const bits = subsection('configuration/target-page-bits', u32(Math.log2(pageSize)));
    const data = filled(5, pageSize);
    const bytes = join(
      header,
      configuration('none', bits),
      start(7, 'ram', 4, blockList(['ram', 4 * pageSize]), EOS),
      part(
        7,
        zeroPage(0, 'ram'),
        normalPage(pageSize, data),
        deltaPage(2 * pageSize, new Uint8Array(Math.min(pageSize, 65535))),
        EOS,
      ),
      ramEnd,
      EOF,
    );
    const pages = ofKind(itemsOf(bytes), 'page');
    expect(pages.map(({ page, is }) => [page, is])).toEqual([
      [0, 'zero'],
      [1, 'data'],
      [2, 'delta'],
    ]);
    expect(pages[1]?.payload).toEqual(data);
  });

  const rejected: [string, Uint8Array, string][] = [
    ['CONTINUE on the first record', zeroPage(0), 'bad-ram-record'],
    ['CONTINUE with EOS', join(u64(0x30)), 'bad-ram-record'],
    ['two kinds at once', join(u64(0x0a), counted('ram'), new Uint8Array(KIB4)), 'bad-ram-record'],
    ['a page and a block list at once', join(u64(0x0c), counted('ram'), new Uint8Array(KIB4)), 'bad-ram-record'],
    ['HOOK', join(u64(0x80)), 'bad-ram-record'],
    ['FULL', join(u64(0x01)), 'bad-ram-record'],
    ['a flag beyond those known', join(u64(0x802), counted('ram'), [0]), 'bad-ram-record'],
    ['no flags', join(u64(0x1000)), 'bad-ram-record'],
    ['a word of zeros', join(u64(0)), 'bad-ram-record'],
    ['EOS with an address', join(u64(0x1010)), 'bad-ram-record'],
    ['EOS with an address above 2^32', join(u64(2n ** 40n + 0x10n)), 'bad-ram-record'],
    ['a sync with an address', join(u64(0x1200)), 'bad-ram-record'],
    ['a block list in a part', blockList(['x', KIB4]), 'bad-ram-record'],
    ['a block that was not listed', zeroPage(0, 'rom'), 'unknown-block'],
    ['an empty block name', zeroPage(0, ''), 'unknown-block'],
    ['a delta with another header byte', join(u64(0x40), counted('ram'), [2], u16(0)), 'bad-delta'],
    ['a delta longer than a page', deltaPage(0, new Uint8Array(KIB4 + 1), 'ram'), 'bad-delta'],
    ['a compressed page far too long', compressedPage(0, new Uint8Array(KIB4 + 1025), 'ram'), 'bad-ram-record'],
    ['a compressed page of 4 GiB', join(u64(0x100), counted('ram'), u32(0xffff_ffff)), 'bad-ram-record'],
  ];
  it.each(rejected)('refuses %s', (_, record, code) => {
    const padded = join(record, new Uint8Array(300));
    expect(errorOf(withRecords(padded))).toMatchObject({ code, place: { offset: recordsAt, section: 'ram' } });
  });

  it.each(rejected.filter(([name]) => name !== 'CONTINUE on the first record'))(
    'gives the pages before %s',
    (_, record, code) => {
      const { items, error } = decode(withRecords(zeroPage(0, 'ram'), join(record, new Uint8Array(300))));
      expect(pagesOf(items)).toEqual(['ram:0 zero']);
      expect(error).toMatchObject({ code, place: { offset: recordsAt + 13 } });
    },
  );

  it('decodes what the slow reader decodes, for any records, wherever windows and batches end', () => {
    const records = fc.array(
      fc.record({
        block: fc.constantFrom('a', 'b'),
        page: fc.nat(2),
        kind: fc.constantFrom('zero', 'data', 'delta'),
        value: fc.integer({ min: 1, max: 255 }),
        names: fc.boolean(),
      }),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(
        records,
        fc.integer({ min: 1, max: 9000 }),
        fc.integer({ min: 1, max: 8 }),
        (list, chunk, capacity) => {
          let current: string | undefined;
          const parts = list.map(({ block, page, kind, value, names }) => {
            const name = names || block !== current ? block : undefined;
            current = block;
            if (kind === 'zero') return zeroPage(page * KIB4, name);
            if (kind === 'data') return normalPage(page * KIB4, filled(value), name);
            return deltaPage(page * KIB4, [value & 0x7f, 1, value], name);
          });
          const bytes = join(none, twoBlocks, part(7, ...parts, EOS), end(7, EOS), EOF);
          const { items, error } = decodeChunked(bytes, chunk, { capacity });
          expect(error).toBeUndefined();
          const pages = ofKind(items, 'page');
          expect(pages.map(({ block, page, is }) => [block, page, is])).toEqual(
            list.map(({ block, page, kind }) => [block, page, kind]),
          );
          const kindOf = { absent: 0, zero: 1, data: 2, delta: 3, compressed: 2 };
          for (const slow of slowRead(bytes).blocks) {
            const last = new Uint8Array(slow.last.length);
            for (const { block, page, is } of pages) if (block === slow.idstr) last[page] = kindOf[is];
            expect(last).toEqual(slow.last);
          }
        },
      ),
      // A page of bytes that look like records of smaller pages.
      {
        numRuns: 60,
        examples: [
          [
            [
              { block: 'a', page: 0, kind: 'data', value: 8, names: false },
              { block: 'a', page: 0, kind: 'delta', value: 1, names: false },
            ],
            1,
            1,
          ],
        ],
      },
    );
  });
});
