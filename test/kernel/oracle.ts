/**
 * The kernels' jobs done in the most obvious way, byte by byte. The kernels are compared with it.
 *
 * XBZRLE follows `docs/formats/xbzrle.md`, sections 1 (encoder) and 2 (decoder). It is slow on purpose, and checks only
 * what the format requires.
 */
import type { XbzrleFault } from '../../src/kernel/index.ts';

/** A count as ULEB128 of at most 14 bits. `wide` uses two bytes even if one is enough. */
export function uleb(count: number, wide = false): number[] {
  return count < 0x80 && !wide ? [count] : [(count & 0x7f) | 0x80, count >> 7];
}

/** The encoding of `next` against `old`: empty if they are equal, undefined if it would exceed the limit (overflow). */
export function xbzrleEncode(old: Uint8Array, next: Uint8Array, limit = old.length): Uint8Array | undefined {
  const pageSize = old.length;
  const out: number[] = [];
  let i = 0;
  while (i < pageSize) {
    if (out.length + 2 > limit) return undefined;
    const equalFrom = i;
    while (i < pageSize && old[i] === next[i]) i++;
    if (i - equalFrom === pageSize) return new Uint8Array(0);
    if (i === pageSize) break;
    out.push(...uleb(i - equalFrom));
    if (out.length + 2 > limit) return undefined;
    const differentFrom = i;
    while (i < pageSize && old[i] !== next[i]) i++;
    out.push(...uleb(i - differentFrom));
    if (out.length + (i - differentFrom) > limit) return undefined;
    for (let k = differentFrom; k < i; k++) out.push(next[k]!);
  }
  return Uint8Array.from(out);
}

/** Decodes onto a copy of `old`. Returns the new page and the end of the last literal, or the fault. */
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

/** The bitmap of zero pages, least significant bit first, and their number. */
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

/** The bitmap of pages that differ, and their number. */
export function comparePages(as: Uint8Array[], bs: Uint8Array[]): { bitmap: Uint8Array; differing: number } {
  const bitmap = new Uint8Array(Math.ceil(as.length / 8));
  let differing = 0;
  as.forEach((a, i) => {
    if (a.every((byte, at) => byte === bs[i]![at])) return;
    bitmap[i >> 3]! |= 1 << (i & 7);
    differing++;
  });
  return { bitmap, differing };
}

const mask64 = (1n << 64n) - 1n;
const [p1, p2, p3, p4] = [0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n];
const rotl = (value: bigint, by: bigint) => ((value << by) | ((value & mask64) >> (64n - by))) & mask64;
const round = (lane: bigint, word: bigint) => (rotl((lane + word * p2) & mask64, 31n) * p1) & mask64;

/** The dirty-sampling hash of a page by docs/formats/dirty-rate.md, with all of its 64 bits. */
export function pageHash(page: Uint8Array): bigint {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const lanes = [1n + p1 + p2, 1n + p2, 1n, 1n - p1].map((lane) => lane & mask64);
  for (let at = 0; at < page.length; at += 8) {
    const lane = (at / 8) % 4;
    lanes[lane] = round(lanes[lane]!, view.getBigUint64(at, true));
  }
  const [a, b, c, d] = lanes as [bigint, bigint, bigint, bigint];
  let hash = rotl(a, 1n) + rotl(b, 7n) + rotl(c, 12n) + rotl(d, 18n);
  for (const lane of lanes) hash = ((hash ^ round(0n, lane)) * p1 + p4) & mask64;
  hash = (hash + BigInt(page.length)) & mask64;
  hash = ((hash ^ (hash >> 33n)) * p2) & mask64;
  hash = ((hash ^ (hash >> 29n)) * p3) & mask64;
  return hash ^ (hash >> 32n);
}

/** gzip's CRC-32, computed bit by bit. */
export function crc32(page: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of page) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

export function countBits(bitmap: Uint8Array): number {
  let count = 0;
  for (const byte of bitmap) for (let bit = 0; bit < 8; bit++) count += (byte >> bit) & 1;
  return count;
}

/** The first position where a pattern of values under masks matches. */
export function find(text: Uint8Array, values: Uint8Array, masks: Uint8Array): number {
  for (let at = 0; at + values.length <= text.length; at++) {
    if (values.every((value, k) => (text[at + k]! & masks[k]!) === value)) return at;
  }
  return -1;
}
