/**
 * The kernels' jobs done in the most obvious way, byte by byte, to judge the kernels by.
 *
 * XBZRLE follows `docs/formats/xbzrle.md`, sections 1 (encoder) and 2 (decoder). Slow on purpose; checks nothing that
 * the format does not.
 */
import type { XbzrleFault } from '../../src/kernel/index.ts';

/** A count as ULEB128 of at most 14 bits; `wide` spends two bytes even where one would do. */
export function uleb(count: number, wide = false): number[] {
  return count < 0x80 && !wide ? [count] : [(count & 0x7f) | 0x80, count >> 7];
}

/** The encoding of `next` against `old`: empty if they are equal, undefined if it would exceed the page (overflow). */
export function xbzrleEncode(old: Uint8Array, next: Uint8Array): Uint8Array | undefined {
  const pageSize = old.length;
  const out: number[] = [];
  let i = 0;
  while (i < pageSize) {
    if (out.length + 2 > pageSize) return undefined;
    const equalFrom = i;
    while (i < pageSize && old[i] === next[i]) i++;
    if (i === pageSize) break;
    out.push(...uleb(i - equalFrom));
    if (out.length + 2 > pageSize) return undefined;
    const differentFrom = i;
    while (i < pageSize && old[i] !== next[i]) i++;
    out.push(...uleb(i - differentFrom));
    if (out.length + (i - differentFrom) > pageSize) return undefined;
    for (let k = differentFrom; k < i; k++) out.push(next[k]!);
  }
  return Uint8Array.from(out);
}

/** Decodes onto a copy of `old`: the new page and the end of the last literal, or why not. */
export function xbzrleDecode(source: Uint8Array, old: Uint8Array): { page: Uint8Array; end: number } | XbzrleFault {
  const page = old.slice();
  let i = 0;
  let end = 0;
  const count = (): number | undefined => {
    const low = source[i++]!;
    if (low < 0x80) return low;
    const high = source[i++]!;
    return high < 0x80 ? low - 0x80 + high * 0x80 : undefined;
  };
  while (i < source.length) {
    if (source.length - i < 2) return 'truncated';
    const isFirst = i === 0;
    const equal = count();
    if (equal === undefined) return 'badUleb';
    if (equal === 0 && !isFirst) return 'emptyRun';
    end += equal;
    if (end > page.length) return 'runBeyondPage';
    if (source.length - i < 2) return 'truncated';
    const different = count();
    if (different === undefined) return 'badUleb';
    if (different === 0) return 'emptyRun';
    if (end + different > page.length) return 'runBeyondPage';
    if (i + different > source.length) return 'literalBeyondInput';
    for (let k = 0; k < different; k++) page[end++] = source[i++]!;
  }
  return { page, end };
}

/** The bitmap of zero pages, least significant bit first, and how many there are. */
export function zeroScan(pages: Uint8Array[]): { bitmap: Uint8Array; zeroes: number } {
  const bitmap = new Uint8Array(Math.ceil(pages.length / 8));
  let zeroes = 0;
  pages.forEach((page, i) => {
    if (page.some((byte) => byte !== 0)) return;
    bitmap[i >> 3]! |= 1 << (i & 7);
    zeroes++;
  });
  return { bitmap, zeroes };
}
