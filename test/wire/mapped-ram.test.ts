import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ByteWindow } from '../../src/wire/byte-window.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { bitmapLength, decodeMappedHeader, encodeMappedHeader, placeMapped } from '../../src/wire/mapped-ram.ts';
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
  footer,
  header,
  join,
  KIB4,
  part,
  start,
  u32,
  u64,
  vmdescription,
  zeroPage,
} from '../oracle/build.ts';
import { codesOf, decode, decodeChunked, errorOf, itemsOf, ofKind, pagesOf, run } from './decoding.ts';
import { blockBytes, firstHeader, mappedRamFile } from './mapped-ram-file.ts';

describe('mapped-ram', () => {
  it('gives the pages whose bits are set, and zeros for the others, whatever their places contain', () => {
    const items = itemsOf(mappedRamFile());
    expect(pagesOf(items)).toEqual(['a:0 data', 'a:1 zero', 'a:2 data', 'b:0 zero', 'b:1 data', 'b:2 zero']);
    const data = ofKind(items, 'page').filter(({ is }) => is === 'data');
    expect(data.map(({ payload }) => payload)).toEqual([filled(1), filled(3), filled(2)]);
    expect(data.map(({ offset }) => offset)).toEqual([0x2000, 0x4000, 0x7000]);
  });

  it('gives the blocks with their places', () => {
    const blocks = ofKind(itemsOf(mappedRamFile()), 'block').map(({ block }) => block);
    expect(blocks).toEqual([
      {
        index: 0,
        idstr: 'a',
        usedLength: blockBytes,
        pageSize: KIB4,
        mapped: { bitmapOffset: firstHeader() + 28, bitmapLength: 8, pagesOffset: 0x2000 },
      },
      {
        index: 1,
        idstr: 'b',
        usedLength: blockBytes,
        pageSize: KIB4,
        mapped: { bitmapOffset: 0x5000 + 10 + 28, bitmapLength: 8, pagesOffset: 0x6000 },
      },
    ]);
  });

  it('gives only the bitmaps on request', () => {
    const items = itemsOf(mappedRamFile(), { read: 'bitmaps' });
    expect(pagesOf(items)).toEqual([]);
    const bits = (byte: number) => [byte, 0, 0, 0, 0, 0, 0, 0];
    expect(ofKind(items, 'bitmap-bits')).toEqual([
      { kind: 'bitmap-bits', block: 'a', bits: bits(0b101) },
      { kind: 'bitmap-bits', block: 'b', bits: bits(0b010) },
    ]);
    expect(items.at(-1)?.kind).toBe('end');
  });

  it('reads none of the page areas if only bitmaps are requested', () => {
    const bytes = mappedRamFile();
    const poisoned = bytes.slice().fill(0xff, 0x2000, 0x5000).fill(0xff, 0x6000, 0x9000);
    expect(itemsOf(poisoned, { read: 'bitmaps' })).toEqual(itemsOf(bytes, { read: 'bitmaps' }));
  });

  it.each([0, 1, 4096, 12345])('counts offsets from the start of the file, with the stream at %i', (offset) => {
    const items = itemsOf(mappedRamFile({ offset }), { offset });
    expect(pagesOf(items)).toHaveLength(6);
    expect(ofKind(items, 'header')[0]?.offset).toBe(offset);
    // The same bytes at another offset are a different file.
    expect(errorOf(join(new Uint8Array(1 << 20), mappedRamFile({ offset })), { offset: offset + (1 << 20) }).code).toBe(
      'bad-mapped-ram-header',
    );
  });

  it('reports pages that do not begin at a MiB boundary, once per block', () => {
    expect(codesOf(itemsOf(mappedRamFile()))).toEqual(['unaligned-pages', 'unaligned-pages']);
  });

  it('does not trust the bitmaps of a RAM section that never ended', () => {
    const items = itemsOf(mappedRamFile({ hasEnd: false }));
    const last = ofKind(items, 'finding').at(-1);
    expect(last?.finding).toMatchObject({ severity: 'error', code: 'untrusted-bitmap', place: { section: 'ram' } });
  });

  it('accepts a gap before a bitmap', () => {
    const shifted = mappedRamFile({ bitmapShift: 16 });
    shifted.fill(0, firstHeader() + 28, firstHeader() + 36);
    shifted[firstHeader() + 28 + 16] = 0b111;
    expect(pagesOf(itemsOf(shifted)).slice(0, 3)).toEqual(['a:0 data', 'a:1 data', 'a:2 data']);
  });

  const refused: [string, Parameters<typeof mappedRamFile>[0], string][] = [
    ['version 0', { version: 0 }, 'bad-mapped-ram-header'],
    ['version 2', { version: 2 }, 'bad-mapped-ram-header'],
    ['page size 512', { pageSize: 512 }, 'bad-mapped-ram-header'],
    ['page size 128 KiB', { pageSize: 1 << 17 }, 'bad-mapped-ram-header'],
    ['a page size that is not a power of two', { pageSize: 4097 }, 'bad-mapped-ram-header'],
    ['page size 0', { pageSize: 0 }, 'bad-mapped-ram-header'],
    ['page size 2^63', { pageSize: 2n ** 63n }, 'limit-exceeded'],
    ['a page size that the block is not a multiple of', { pageSize: 8192 }, 'bad-mapped-ram-header'],
    ['a bitmap inside its header', { bitmapShift: -1 }, 'bad-mapped-ram-header'],
    ['a bitmap that reaches into the pages', { bitmapShift: 0x2000 - firstHeader() - 28 - 7 }, 'bad-mapped-ram-header'],
    ['pages before the bitmap', { pagesOffset: 0 }, 'bad-mapped-ram-header'],
    ['pages not at a multiple of the page size', { pagesOffset: 0x2008 }, 'bad-mapped-ram-header'],
    ['pages that end at 2^53', { pagesOffset: 2 ** 53 - blockBytes }, 'bad-mapped-ram-header'],
    ['pages at 2^63', { pagesOffset: 2n ** 63n }, 'limit-exceeded'],
    ['the first bit after the last page', { bitmap: [0b1101] }, 'bad-bitmap'],
    ['the last bit of the last word', { bitmap: [0b101, 0, 0, 0, 0, 0, 0, 0x80] }, 'bad-bitmap'],
    ['a page record', { extra: part(1, zeroPage(0, 'a'), EOS) }, 'bad-ram-record'],
    ['a sync', { extra: part(1, FLUSH, EOS) }, 'bad-ram-record'],
  ];
  it.each(refused)('refuses %s', (_, layout, code) => {
    const error = errorOf(mappedRamFile(layout));
    expect(error.code).toBe(code);
    if (code === 'bad-mapped-ram-header') {
      expect(error.place).toMatchObject({ offset: firstHeader(), section: 'ram', block: 'a' });
    }
    // The error is the same whether the pages are read or not.
    expect(errorOf(mappedRamFile(layout), { read: 'bitmaps' }).code).toBe(code);
  });

  it('accepts a bitmap that ends where the pages begin', () => {
    const layout = { bitmapShift: 0x2000 - firstHeader() - 28 - 8 };
    expect(codesOf(itemsOf(mappedRamFile(layout)))).not.toContain('bad-mapped-ram-header');
  });

  it('names the byte of a bitmap that has bits beyond the block', () => {
    const error = errorOf(mappedRamFile({ bitmap: [0, 0, 0, 0, 0x10] }));
    expect(error.place).toMatchObject({ offset: firstHeader() + 28 + 4, block: 'a' });
  });

  it('reports a file that ends in a bitmap, in a page, or before the rest as truncated', () => {
    const bytes = mappedRamFile();
    for (const length of [firstHeader() + 27, firstHeader() + 28, firstHeader() + 35, 0x2fff, 0x4fff, 0x8000]) {
      expect(errorOf(bytes.subarray(0, length)), `${length} bytes`).toMatchObject({ code: 'truncated' });
    }
    expect(errorOf(bytes.subarray(0, 0x4fff)).detail).toMatch(/pages of RAM block "a" to end at/);
  });

  it('gives no pages of a truncated block, because a false size must not cost more than the file has', () => {
    expect(pagesOf(decode(mappedRamFile().subarray(0, 0x4fff)).items)).toEqual([]);
  });

  it('takes the page size from the header of the first block, if nothing else states it', () => {
    const { items } = decode(moreBlocks(8192, [16]));
    expect(ofKind(items, 'block')[0]?.block.pageSize).toBe(8192);
    expect(pagesOf(items)).toHaveLength(16);
  });

  it('refuses a second block with another page size', () => {
    const bytes = moreBlocks(8192, [2, 2]);
    const second = bytes.indexOf('block1', 0, 'latin1') + 6 + 8;
    bytes.set(u64(4096), second + 4);
    expect(errorOf(bytes)).toMatchObject({ code: 'bad-mapped-ram-header', place: { block: 'block1' } });
  });

  it('refuses a page size that contradicts the description', () => {
    const sizes = { pageSize: 4096, devices: [] };
    expect(errorOf(moreBlocks(8192, [2]), { sizes }).code).toBe('bad-mapped-ram-header');
  });

  describe('with x-ignore-shared', () => {
    const head = join(header, configuration('none', capabilities('x-ignore-shared', 'mapped-ram')));

    it('accepts a block without a header', () => {
      const bytes = join(
        head,
        start(1, 'ram', 4, blockList(['shared', KIB4, u64(0x100000)], ['other', KIB4, u64(0)]), EOS),
        end(1, EOS),
        EOF,
      );
      const blocks = ofKind(itemsOf(bytes), 'block').map(({ block }) => block);
      expect(blocks.map(({ guestAddress, mapped }) => [guestAddress, mapped])).toEqual([
        [0x100000n, undefined],
        [0n, undefined],
      ]);
    });

    it('accepts a block with a header after one without', () => {
      const before = join(head, [1], u32(1), counted('ram'), u32(0), u32(4), u64(2 * KIB4 + 4));
      const shared = join(counted('shared'), u64(KIB4), u64(0x100000));
      const entry = join(counted('own'), u64(KIB4), u64(0));
      const place = placeMapped(before.length + shared.length + entry.length, 1);
      const out = new ByteWriter();
      encodeMappedHeader(out, KIB4, { ...place, pagesOffset: 0x1000 });
      const used = join(before, shared, entry, out.bytes(), [1, 0, 0, 0, 0, 0, 0, 0]);
      const bytes = join(used, new Uint8Array(0x1000 - used.length), filled(9), EOS, footer(1), end(1, EOS), EOF);
      expect(pagesOf(itemsOf(bytes))).toEqual(['own:0 data']);
    });
  });

  /** A file as QEMU lays it out, with all bits set in every third page. */
  function moreBlocks(pageSize: number, pages: number[]): Buffer {
    const total = pages.reduce((sum, count) => sum + count, 0) * pageSize;
    const head = join(header, configuration('none', capabilities('mapped-ram')));
    let bytes = join(head, [1], u32(1), counted('ram'), u32(0), u32(4), u64(total + 4));
    pages.forEach((count, i) => {
      const out = new ByteWriter().string(`block${i}`).u64(count * pageSize);
      const place = placeMapped(bytes.length + out.length, count);
      encodeMappedHeader(out, pageSize, place);
      const bits = new Uint8Array(place.bitmapLength);
      for (let page = 0; page < count; page += 3) bits[page >> 3]! |= 1 << (page & 7);
      bytes = join(bytes, out.bytes(), bits);
      const area = new Uint8Array(place.pagesOffset - bytes.length + count * pageSize);
      for (let page = 0; page < count; page++) {
        const at = place.pagesOffset - bytes.length + page * pageSize;
        area.fill(page % 3 === 0 ? 1 + (page % 255) : 0xee, at, at + pageSize);
      }
      bytes = join(bytes, area);
    });
    const tail = join(
      EOS,
      footer(1),
      part(1, EOS),
      end(1, EOS),
      EOF,
      vmdescription({ page_size: pageSize, devices: [] }),
    );
    return Buffer.from(join(bytes, tail));
  }

  it.each([
    [4096, [1]],
    [4096, [63, 64, 65]],
    [1024, [1000]],
    [65536, [3, 20]],
  ])("reads files of %i byte pages with blocks of %j pages in QEMU's layout", (pageSize, counts) => {
    const bytes = moreBlocks(pageSize, counts);
    const sizes = { pageSize, devices: [] };
    for (const capacity of [7, 64]) {
      const { items, error } = decodeChunked(bytes, 1 << 16, { sizes, capacity });
      expect(error).toBeUndefined();
      const expected = counts.flatMap((count, i) =>
        Array.from({ length: count }, (_, page) => `block${i}:${page} ${page % 3 === 0 ? 'data' : 'zero'}`),
      );
      expect(pagesOf(items)).toEqual(expected);
      for (const { is, page, payload } of ofKind(items, 'page')) {
        if (is === 'data') expect(payload.every((byte) => byte === 1 + (page % 255))).toBe(true);
        else expect(payload).toHaveLength(0);
      }
      expect(codesOf(items)).toEqual([]);
    }
  });
});

describe('the mapped-ram header', () => {
  it("has QEMU's layout", () => {
    expect(placeMapped(0x65, 4096)).toEqual({ bitmapOffset: 0x81, bitmapLength: 512, pagesOffset: 0x100000 });
    expect(placeMapped(0x100000 - 28 - 8, 64).pagesOffset).toBe(0x100000);
    expect(placeMapped(0x100000 - 28 - 7, 64).pagesOffset).toBe(0x200000);
    const out = new ByteWriter();
    encodeMappedHeader(out, 4096, placeMapped(0x65, 4096));
    expect(out.bytes()).toEqual(join(u32(1), u64(4096), u64(0x81), u64(0x100000)));
    expect(out.length).toBe(28);
  });

  it.each([
    [0, 0],
    [1, 8],
    [64, 8],
    [65, 16],
    [2 ** 34, 2 ** 31],
  ])('has a bitmap for %i pages in %i bytes', (pages, bytes) => {
    expect(bitmapLength(pages)).toBe(bytes);
  });

  it('decodes what it encodes, at any offset', () => {
    const sizes = fc.integer({ min: 10, max: 16 }).map((bits) => 2 ** bits);
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 2 ** 30 }), fc.nat(5000), fc.boolean(), (size, pages, at, known) => {
        const place = placeMapped(at, pages);
        const out = new ByteWriter();
        encodeMappedHeader(out, size, place);
        const decoder = (window: ByteWindow) =>
          decodeMappedHeader(window, 'ram', pages * size, known ? size : undefined);
        const decoded = run(join(new Uint8Array(at), out.bytes()), 7, decoder, undefined, at);
        expect(decoded).toEqual({ place, pageSize: size });
      }),
    );
  });
});
