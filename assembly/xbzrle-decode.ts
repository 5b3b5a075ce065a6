/**
 * XBZRLE decoder: turns the old content of a page into the new one, in place, and the same walk without a page.
 *
 * The format and what is refused: `docs/formats/xbzrle.md`, section 2. Counts need not be minimal (`83 00` is 3) and an
 * empty encoding decodes to nothing, as in QEMU. Validity is decided run by run: after an error the runs before it have
 * been written, so the page is then neither old nor new. Reads stay inside the source and writes inside the page; the
 * source and the page must not overlap. Nothing else is checked here: the caller vouches for the ranges.
 */
import { copyLiteral } from './literal';

/** Fewer than two bytes where a run has to begin. */
export const XBZRLE_TRUNCATED: i32 = -1;
/** A count whose second byte has bit 7 set. */
export const XBZRLE_BAD_ULEB: i32 = -2;
/** A run of no bytes, where only the very first equal run may be empty. */
export const XBZRLE_EMPTY_RUN: i32 = -3;
/** A run that ends after the page. */
export const XBZRLE_RUN_BEYOND_PAGE: i32 = -4;
/** A literal that ends after the input. */
export const XBZRLE_LITERAL_BEYOND_INPUT: i32 = -5;

/** The walk over all runs; `writes` is a compile-time constant and says whether there is a page. */
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
    // Nearly always: two counts of one byte each, neither 0, and a byte of literal. What is unusual goes the slow way.
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

/** What `xbzrleDecode` would return, without a page. */
export function xbzrleCheck(source: usize, length: u32, pageSize: u32): i32 {
  return walk(source, length, 0, pageSize, false);
}

/**
 * Decodes `count` encodings in order: the `lengths[i]` bytes at `sources[i]` onto the page at `pages[i]` (u32 tables),
 * with the result in `results[i]` (i32). Returns how many failed.
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

/** As `xbzrleDecodeBatch`, without pages. */
export function xbzrleCheckBatch(sources: usize, lengths: usize, count: u32, pageSize: u32, results: usize): u32 {
  let failures: u32 = 0;
  for (let i: usize = 0, tableEnd = <usize>count << 2; i < tableEnd; i += 4) {
    const result = walk(load<u32>(sources + i), load<u32>(lengths + i), 0, pageSize, false);
    store<i32>(results + i, result);
    failures += <u32>(result < 0);
  }
  return failures;
}
