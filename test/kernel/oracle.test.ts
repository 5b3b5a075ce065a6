import { describe, expect, it } from 'vitest';
import { uleb, xbzrleDecode, xbzrleEncode, zeroScan } from './oracle.ts';

// Facts: docs/formats/xbzrle.md, sections 1, 3 and 4.
const zeroes = (length = 4096) => new Uint8Array(length);
const filled = (from: number, to: number, length = 4096) => zeroes(length).fill(1, from, to);

describe('the XBZRLE oracle encodes', () => {
  it('an equal page as nothing', () => {
    expect(xbzrleEncode(filled(1001, 1003), filled(1001, 1003))).toEqual(zeroes(0));
  });

  it('a single byte at the end of a page in 4 bytes', () => {
    expect(xbzrleEncode(zeroes(), filled(4095, 4096))).toEqual(Uint8Array.of(0xff, 0x1f, 1, 1));
  });

  it('differing bytes with one equal byte between them as two runs', () => {
    const next = zeroes();
    next[5] = 7;
    next[7] = 9;
    expect(xbzrleEncode(zeroes(), next)).toEqual(Uint8Array.of(5, 1, 7, 1, 1, 9));
  });

  it('200 differing bytes at the start in 203 bytes', () => {
    const encoded = xbzrleEncode(zeroes(), filled(0, 200));
    expect(encoded?.subarray(0, 3)).toEqual(Uint8Array.of(0, 0xc8, 1));
    expect(encoded?.length).toBe(203);
  });

  it.each([
    ['4091 bytes at the start', 0, 4091, 4094],
    ['4092 bytes at the start', 0, 4092, undefined],
    ['the whole page', 0, 4096, undefined],
    ['4093 bytes at the end', 3, 4096, 4096],
    ['4094 bytes at the end', 2, 4096, undefined],
  ])('%s up to the limit of one page', (_, from, to, length) => {
    expect(xbzrleEncode(zeroes(), filled(from, to))?.length).toBe(length);
  });

  it('every second byte as overflow', () => {
    const next = zeroes().map((_, i) => (i % 2 === 0 ? 1 : 0));
    expect(xbzrleEncode(zeroes(), next)).toBeUndefined();
  });
});

describe('the oracle', () => {
  it('writes counts below 0x80 in one byte and up to 0x3fff in two', () => {
    expect([0, 0x7f, 0x80, 0x3fff].map((count) => uleb(count))).toEqual([[0], [0x7f], [0x80, 1], [0xff, 0x7f]]);
    expect(uleb(3, true)).toEqual([0x83, 0]);
  });

  it('decodes what it encoded', () => {
    const next = filled(17, 300);
    expect(xbzrleDecode(xbzrleEncode(zeroes(), next)!, zeroes())).toEqual({ page: next, end: 300 });
  });

  it('numbers pages from the least significant bit', () => {
    const pages = [zeroes(), filled(9, 10), zeroes(), ...Array.from({ length: 6 }, () => filled(0, 1)), zeroes()];
    expect(zeroScan(pages)).toEqual({ bitmap: Uint8Array.of(0b101, 0b10), zeroes: 3 });
  });
});
