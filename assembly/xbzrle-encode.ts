/**
 * XBZRLE encoder: encodes the change from an old page to a new one, byte for byte as QEMU does.
 *
 * Format and overflow rule: `docs/formats/xbzrle.md`, section 1. There are two passes. The first compares 64 B at a
 * time and keeps the blocks in which a run begins or ends, as a mask of the bytes that differ from their left
 * neighbour:
 *
 *     differs     0 0 0 1 1 1 0 0 0 1 0 ...      (bit 0 first; its neighbour is in the previous block)
 *     edges       0 0 0 1 0 0 1 0 0 1 1 ...      differs ^ (differs << 1 | carry)
 *
 * Spans of 128 B that only continue the current run are skipped. The pass also bounds the encoding from both sides: a
 * run of n bytes takes n + 2 to n + 4. So most pages that do not fit are given up before a byte is written, and those
 * that surely fit are written without a check. The second pass walks the edges with ctz and copies each literal.
 *
 * The edges go behind the output, into `XBZRLE_ENCODE_SLACK` bytes that the caller leaves free. With no static scratch,
 * any number of workers can share a memory. Reads stay inside the two pages. No argument checks here: the caller
 * guarantees the ranges, that they do not overlap, and a page size that is a multiple of 128 up to `XBZRLE_MAX_PAGE`.
 */
import { copy16, copyLiteral } from './literal';
import { isSpanEqual, isSpanUnlike } from './span';

/** The encoding would exceed the limit: the page is sent as it is. */
export const XBZRLE_OVERFLOW: i32 = -1;
/** Counts have 14 bits, so larger pages can have runs that cannot be written. */
export const XBZRLE_MAX_PAGE: u32 = 16384;
/** Bytes that a copy may write behind a literal. */
const OVERCOPY: u32 = 16;
/** One block with edges: u64 edges, u32 offset of the block, 4 bytes unused. */
const ENTRY: u32 = 16;
/** Bytes behind the output that are overwritten. */
export const XBZRLE_ENCODE_SLACK: u32 = OVERCOPY + (XBZRLE_MAX_PAGE / 64) * ENTRY;

/** 16 bits at `at`: which of 16 bytes are equal. */
// @ts-ignore: decorator
@inline
function equal16(a: usize, b: usize, at: usize): u64 {
  return <u64>(<u32>i8x16.bitmask(i8x16.eq(v128.load(a + at), v128.load(b + at))));
}

/** 8 bits: which of 8 bytes differ. The multiplication gathers the lowest bit of every byte in the highest byte. */
// @ts-ignore: decorator
@inline
function differ8(a: usize, b: usize, at: usize): u64 {
  const x = load<u64>(a + at) ^ load<u64>(b + at);
  const high = (((x & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | x) & 0x8080808080808080;
  return ((high >> 7) * 0x0102040810204080) >> 56;
}

/** 64 bits: which of 64 bytes differ. */
// @ts-ignore: decorator
@inline
function differ64(a: usize, b: usize): u64 {
  if (ASC_FEATURE_SIMD) {
    const low = equal16(a, b, 0) | (equal16(a, b, 16) << 16);
    const high = equal16(a, b, 32) | (equal16(a, b, 48) << 16);
    return ~(low | (high << 32));
  }
  const low =
    differ8(a, b, 0) | (differ8(a, b, 8) << 8) | (differ8(a, b, 16) << 16) | (differ8(a, b, 24) << 24);
  const high =
    differ8(a, b, 32) | (differ8(a, b, 40) << 8) | (differ8(a, b, 48) << 16) | (differ8(a, b, 56) << 24);
  return low | (high << 32);
}

/** Writes a count and returns the address of the next byte; always stores two. */
// @ts-ignore: decorator
@inline
function putCount(to: usize, count: u32): usize {
  if (count < 0x80) {
    store<u8>(to, count);
    return to + 1;
  }
  store<u16>(to, (count & 0x7f) | 0x80 | ((count >> 7) << 8));
  return to + 2;
}

/**
 * The second pass over the blocks listed in `entries..entriesEnd`; `checks` is a compile-time constant and says whether
 * the encoding can still exceed `limit`.
 */
// @ts-ignore: decorator
@inline
function write(
  next: usize,
  pageSize: u32,
  out: usize,
  limit: u32,
  entries: usize,
  entriesEnd: usize,
  checks: bool,
): i32 {
  const outEnd = out + limit;
  const lastBlock = pageSize - 64;
  let to = out;
  /** Where the last literal ended, and where the one that reaches into the next block began. */
  let done: u32 = 0;
  let start: u32 = 0;
  let isOpen = false;
  for (let entry = entries; entry < entriesEnd; entry += ENTRY) {
    let edges = load<u64>(entry);
    const block = load<u32>(entry, 8);
    if (isOpen) {
      const end = block + <u32>ctz(edges);
      edges &= edges - 1;
      const length = end - start;
      to = putCount(to, start - done);
      if (checks && to + 2 > outEnd) return XBZRLE_OVERFLOW;
      to = putCount(to, length);
      if (checks && to + length > outEnd) return XBZRLE_OVERFLOW;
      copyLiteral(to, next + start, length);
      to += length;
      done = end;
      isOpen = false;
      if (checks && to + 2 > outEnd) return XBZRLE_OVERFLOW;
    }
    while (edges) {
      start = block + <u32>ctz(edges);
      edges &= edges - 1;
      if (!edges) {
        isOpen = true;
        break;
      }
      const end = block + <u32>ctz(edges);
      edges &= edges - 1;
      const length = end - start;
      to = putCount(to, start - done);
      if (checks && to + 2 > outEnd) return XBZRLE_OVERFLOW;
      // Within a block: at most 63, so one byte.
      store<u8>(to++, length);
      if (checks && to + length > outEnd) return XBZRLE_OVERFLOW;
      if (block < lastBlock) {
        copy16(to, next + start);
        if (length > 16) {
          copy16(to + 16, next + start + 16);
          if (length > 32) {
            copy16(to + 32, next + start + 32);
            if (length > 48) copy16(to + 48, next + start + 48);
          }
        }
      } else {
        copyLiteral(to, next + start, length);
      }
      to += length;
      done = end;
      if (checks && to + 2 > outEnd) return XBZRLE_OVERFLOW;
    }
  }
  if (isOpen) {
    const length = pageSize - start;
    to = putCount(to, start - done);
    if (checks && to + 2 > outEnd) return XBZRLE_OVERFLOW;
    to = putCount(to, length);
    if (checks && to + length > outEnd) return XBZRLE_OVERFLOW;
    copyLiteral(to, next + start, length);
    to += length;
  }
  return <i32>(to - out);
}

/**
 * Encodes a page into at most `limit` bytes at `out`. Overwrites `XBZRLE_ENCODE_SLACK` bytes behind those.
 * Returns the length, 0 if the pages are equal, or `XBZRLE_OVERFLOW`. A limit below 2 overflows even for equal pages.
 */
export function xbzrleEncode(old: usize, next: usize, pageSize: u32, out: usize, limit: u32): i32 {
  if (limit < 2) return XBZRLE_OVERFLOW;
  const entries = out + limit + OVERCOPY;
  let entry = entries;
  let carry: u64 = 0;
  /** Bytes that differ, and runs of them; the encoding takes at least bytes + 2 * runs. */
  let least: u32 = 0;
  let runs: u32 = 0;
  for (let at: u32 = 0; at < pageSize; at += 128) {
    // A run probably continues, and so does a gap between runs.
    if (carry) {
      if (isSpanUnlike(old + at, next + at)) {
        least += 128;
        if (least > limit) return XBZRLE_OVERFLOW;
        continue;
      }
    } else if (isSpanEqual(old + at, next + at)) {
      continue;
    }
    for (let block = at, end = at + 128; block < end; block += 64) {
      const differs = differ64(old + block, next + block);
      const shifted = (differs << 1) | carry;
      const edges = differs ^ shifted;
      const begun = <u32>popcnt(differs & ~shifted);
      carry = differs >> 63;
      runs += begun;
      least += <u32>popcnt(differs) + (begun << 1);
      store<u64>(entry, edges);
      store<u32>(entry, block, 8);
      entry += <usize>(edges != 0) << 4;
    }
    if (least > limit) return XBZRLE_OVERFLOW;
  }
  if (!runs) return 0;
  if (least + (runs << 1) + 2 <= limit) return write(next, pageSize, out, limit, entries, entry, false);
  return write(next, pageSize, out, limit, entries, entry, true);
}

/**
 * Encodes `count` pages, page `news[i]` against `olds[i]` (u32 tables), each within `limit` bytes. The encodings are
 * stored back to back from `out`, where `count * limit + XBZRLE_ENCODE_SLACK` bytes must be free; `results[i]` (i32)
 * receives each result. Returns the total number of bytes.
 */
export function xbzrleEncodeBatch(
  olds: usize,
  news: usize,
  count: u32,
  pageSize: u32,
  limit: u32,
  out: usize,
  results: usize,
): u32 {
  let to = out;
  for (let i: usize = 0, tableEnd = <usize>count << 2; i < tableEnd; i += 4) {
    const result = xbzrleEncode(load<u32>(olds + i), load<u32>(news + i), pageSize, to, limit);
    store<i32>(results + i, result);
    if (result > 0) to += result;
  }
  return <u32>(to - out);
}
