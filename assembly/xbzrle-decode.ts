/**
 * XBZRLE decoder: turns the old content of a page into the new content in place, or only checks an encoding.
 *
 * Format and error rules: `docs/formats/xbzrle.md`, section 2. As in QEMU, counts need not be minimal (`83 00` is 3)
 * and an empty encoding decodes to nothing. Runs are validated one by one: when a run is invalid, those before it are
 * already written, so the page is neither old nor new. Reads stay inside the source and writes inside the page; the
 * source and the page must not overlap. No other argument checks here: the caller guarantees the ranges.
 */
import { copyLiteral } from './literal';

/** Fewer than two bytes left where a run must begin. */
export const XBZRLE_TRUNCATED: i32 = -1;
/** A count whose second byte has bit 7 set. */
export const XBZRLE_BAD_ULEB: i32 = -2;
/** An empty run; only the very first equal run may be empty. */
export const XBZRLE_EMPTY_RUN: i32 = -3;
/** A run that ends past the page. */
export const XBZRLE_RUN_BEYOND_PAGE: i32 = -4;
/** A literal that ends past the input. */
export const XBZRLE_LITERAL_BEYOND_INPUT: i32 = -5;

/** Walks all runs; `writes`, a compile-time constant, says whether there is a page. */
// @ts-ignore: decorator
@inline
function walk(source: usize, length: u32, page: usize, pageSize: u32, writes: bool): i32 {
  const end = source + length;
  let at = source;
  let done: u32 = 0;
  let run: u32 = 0;
  while (at < end) {
    if (end - at < 2) return XBZRLE_TRUNCATED;
    const counts: u32 = load<u16>(at);
    // The usual case: two counts of one byte each, neither 0, and a byte of literal. The rest takes the slow path.
    if (!(counts & 0x8080) && end - at > 2 && counts & 0xff && counts >> 8) {
      done += counts & 0xff;
      if (done > pageSize) return XBZRLE_RUN_BEYOND_PAGE;
      run = counts >> 8;
      at += 2;
    } else {
      const first = at == source;
      run = load<u8>(at++);
      if (run & 0x80) {
        const high: u32 = load<u8>(at++);
        if (high & 0x80) return XBZRLE_BAD_ULEB;
        run = (run & 0x7f) | (high << 7);
      }
      if (!run && !first) return XBZRLE_EMPTY_RUN;
      done += run;
      if (done > pageSize) return XBZRLE_RUN_BEYOND_PAGE;

      if (end - at < 2) return XBZRLE_TRUNCATED;
      run = load<u8>(at++);
      if (run & 0x80) {
        const high: u32 = load<u8>(at++);
        if (high & 0x80) return XBZRLE_BAD_ULEB;
        run = (run & 0x7f) | (high << 7);
      }
      if (!run) return XBZRLE_EMPTY_RUN;
    }
    if (run > pageSize - done) return XBZRLE_RUN_BEYOND_PAGE;
    if (run > <u32>(end - at)) return XBZRLE_LITERAL_BEYOND_INPUT;
    if (writes) copyLiteral(page + done, at, run);
    done += run;
    at += run;
  }
  return done;
}

/** Decodes `length` bytes onto the page; returns the end of the last literal (0 for no input), or an error code. */
export function xbzrleDecode(source: usize, length: u32, page: usize, pageSize: u32): i32 {
  return walk(source, length, page, pageSize, true);
}

/** Returns what `xbzrleDecode` would return, without a page. */
export function xbzrleCheck(source: usize, length: u32, pageSize: u32): i32 {
  return walk(source, length, 0, pageSize, false);
}

/**
 * Decodes `count` encodings in order: the `lengths[i]` bytes at `sources[i]` onto the page at `pages[i]` (u32 tables),
 * and puts each result into `results[i]` (i32). Returns how many failed.
 */
export function xbzrleDecodeBatch(
  sources: usize,
  lengths: usize,
  pages: usize,
  count: u32,
  pageSize: u32,
  results: usize,
): u32 {
  let failures: u32 = 0;
  for (let i: usize = 0, tableEnd = <usize>count << 2; i < tableEnd; i += 4) {
    const result = walk(load<u32>(sources + i), load<u32>(lengths + i), load<u32>(pages + i), pageSize, true);
    store<i32>(results + i, result);
    failures += <u32>(result < 0);
  }
  return failures;
}

/** Like `xbzrleDecodeBatch`, without pages. */
export function xbzrleCheckBatch(sources: usize, lengths: usize, count: u32, pageSize: u32, results: usize): u32 {
  let failures: u32 = 0;
  for (let i: usize = 0, tableEnd = <usize>count << 2; i < tableEnd; i += 4) {
    const result = walk(load<u32>(sources + i), load<u32>(lengths + i), 0, pageSize, false);
    store<i32>(results + i, result);
    failures += <u32>(result < 0);
  }
  return failures;
}
