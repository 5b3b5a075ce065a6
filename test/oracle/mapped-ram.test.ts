import { describe, expect, it } from 'vitest';
import {
  blockList,
  capabilities,
  configuration,
  counted,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  header,
  join,
  KIB4,
  part,
  start,
  u32,
  u64,
  zeroPage,
} from './build.ts';
import { pageOf, rejection } from './reading.ts';
import { recordBoundaries, slowRead } from './slow-reader.ts';

describe('slow reader: mapped-ram', () => {
  interface Layout {
    version?: number;
    pageSize?: number;
    bitmapShift?: number;
    pagesOffset?: number;
    bitmap?: number[];
    hasEnd?: boolean;
    extra?: Uint8Array;
  }
  const PAGES = 0x2000;
  const BLOCK = 3 * KIB4;

  /**
   * Two blocks of three pages; the second follows the first one's pages directly.
   * Every page area holds its page's number + 1.
   */
  function mappedRam(layout: Layout = {}): Uint8Array {
    const {
      version = 1,
      pageSize = KIB4,
      bitmapShift = 0,
      pagesOffset = PAGES,
      bitmap = [0b101],
      hasEnd = true,
    } = layout;
    const head = join(header, configuration('none', capabilities('mapped-ram')));
    const area = join(filled(1), filled(2), filled(3));
    const entry = (at: number, name: string, pages: number, bits: number[]): Uint8Array => {
      const bitmapOffset = at + 1 + name.length + 8 + 28;
      const fields = [u32(version), u64(pageSize), u64(bitmapOffset + bitmapShift), u64(pages)];
      const used = join(counted(name), u64(BLOCK), ...fields, bits, new Uint8Array(8 - bits.length));
      return join(used, new Uint8Array(Math.max(0, PAGES * Math.ceil((at + 1) / PAGES) - at - used.length)), area);
    };
    const listAt = head.length + 17;
    const first = entry(listAt + 8, 'a', pagesOffset, bitmap);
    const secondAt = PAGES + BLOCK;
    const second = entry(secondAt, 'b', 0x6000, [0b010]);
    return join(
      head,
      [1],
      u32(1),
      counted('ram'),
      u32(0),
      u32(4),
      u64(2 * BLOCK + 4),
      first,
      second,
      EOS,
      [0x7e],
      u32(1),
      layout.extra ?? part(1, EOS),
      hasEnd ? end(1, EOS) : [],
      EOF,
    );
  }

  it('reads the pages whose bits are set, and zeros for stale ones', () => {
    const bytes = mappedRam();
    const result = slowRead(bytes);
    expect(result).toMatchObject({ format: 'mapped-ram', complete: true, end: bytes.length });
    expect(result.blocks.map((block) => [...block.last])).toEqual([
      [2, 1, 2],
      [1, 2, 1],
    ]);
    expect([0, 1, 2].map((page) => pageOf(result, page, 0)[0])).toEqual([1, 0, 3]);
    expect([0, 1, 2].map((page) => pageOf(result, page, 1)[0])).toEqual([0, 2, 0]);
  });

  it('gives the starts and ends of headers, bitmaps and page areas as boundaries', () => {
    const boundaries = recordBoundaries(mappedRam());
    const bitmap = 17 + 1 + 27 + 4 + 4 + 11 + 17 + 8 + 2 + 8 + 28;
    expect(boundaries).toEqual(expect.arrayContaining([bitmap - 28, bitmap, bitmap + 8, PAGES, PAGES + BLOCK]));
  });

  it('treats a background snapshot as incomplete', () => {
    expect(slowRead(mappedRam({ hasEnd: false })).complete).toBe(false);
  });

  it('counts offsets from the start of the file', () => {
    const bytes = mappedRam();
    const moved = join(new Uint8Array(KIB4), bytes);
    expect(rejection(moved, KIB4)).toMatch(/overlaps the mapped-ram header/);
  });

  it('reads a block without header, as x-ignore-shared leaves it', () => {
    const bytes = join(
      header,
      configuration('none', capabilities('x-ignore-shared', 'mapped-ram')),
      start(1, 'ram', 4, blockList(['shared', KIB4, u64(0x100000)]), EOS),
      end(1, EOS),
      EOF,
    );
    expect([...slowRead(bytes).blocks[0]!.last]).toEqual([0]);
  });

  const rejected: [string, Layout, RegExp][] = [
    ['version 2', { version: 2 }, /version 2/],
    ['another page size', { pageSize: 8192 }, /page size of 8192/],
    ['a bitmap inside the header', { bitmapShift: -1 }, /overlaps the mapped-ram header/],
    ['a bitmap inside the pages', { bitmapShift: 0x2000 - 0x82 }, /overlaps the pages/],
    ['unaligned pages', { pagesOffset: PAGES + 8 }, /not aligned/],
    ['a bit behind the last page', { bitmap: [0b1000] }, /beyond the last page/],
    ['a bit behind the last page, in another byte', { bitmap: [0, 0, 0, 0, 0, 0, 0, 0x80] }, /beyond the last page/],
    ['a page behind the end of the file', { pagesOffset: 0x1000000 }, /ends inside page 0/],
    ['an entry behind the end of the file', { pagesOffset: 0x1000000, bitmap: [0] }, /ends inside/],
    ['a page record', { extra: part(1, zeroPage(0, 'a'), EOS) }, /page record/],
    ['a flush', { extra: part(1, FLUSH, EOS) }, /MULTIFD_FLUSH/],
  ];
  it.each(rejected)('rejects %s', (_, layout, message) => {
    expect(rejection(mappedRam(layout))).toMatch(message);
  });
});
