/**
 * Runs of page records: what a store does with a batch, so that JavaScript handles a few runs and not each page.
 *
 *     record     0 1 2 3 4 5 6 7 8          a run: records of neighbouring pages that are treated alike
 *     page       4 5 6 7 8 9 | 40 41 42
 *     content    d d d z z d | d  d  d      d: data, z: zero, by its kind or by its bytes
 *     run        [ 3 ][2 ][1]  [  3  ]
 *
 * A run of data is `RUN_IN_PLACE` if its pages are contiguous in memory, and `RUN_SCATTERED` otherwise. The result is a table
 * of words: records << 2 | type.
 */
import { isPageZero } from './zero-scan';

/** Pages of zeros. */
export const RUN_ZERO: u32 = 0;
/** Pages of data that are contiguous in memory. */
export const RUN_IN_PLACE: u32 = 1;
/** Pages of data that are not. */
export const RUN_SCATTERED: u32 = 2;

/** Kinds of records, as in `src/kernel/page-batch.ts`. */
const KIND_ZERO: u8 = 1;
const KIND_DATA: u8 = 2;
const KIND_COMPRESSED: u8 = 4;

/** What {@link contentOf} returns for a record that no run can have. */
const CONTENT_OTHER: u32 = 0;
const CONTENT_ZERO: u32 = 1;
const CONTENT_DATA: u32 = 2;

// @ts-ignore: decorator
@inline
function contentOf(kind: u8, data: u32, length: u32, pageSize: u32, base: u32, end: u32): u32 {
  if (kind == KIND_ZERO) return CONTENT_ZERO;
  if ((kind != KIND_DATA && kind != KIND_COMPRESSED) || length != pageSize) return CONTENT_OTHER;
  if (data < base || data > end - pageSize) return CONTENT_OTHER;
  return isPageZero(data, pageSize) ? CONTENT_ZERO : CONTENT_DATA;
}

/**
 * Writes the runs of `count` records to `runs`, at most `count` words, and returns their number. Returns -1 if a record is
 * neither a zero page nor a whole page of data within `base..end`, or its page is not a whole number below `pagesInBlock`.
 */
export function pageRuns(
  kinds: usize,
  pages: usize,
  data: usize,
  lengths: usize,
  count: u32,
  pageSize: u32,
  pagesInBlock: f64,
  base: u32,
  end: u32,
  runs: usize,
): i32 {
  let found: u32 = 0;
  let length: u32 = 0;
  let type: u32 = 0;
  let content: u32 = 0;
  let lastPage: f64 = 0;
  let lastData: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const page = load<f64>(pages + (i << 3));
    if (!(page >= 0 && page < pagesInBlock) || page != Math.floor(page)) return -1;
    const at = load<u32>(data + (i << 2));
    const next = contentOf(load<u8>(kinds + i), at, load<u32>(lengths + (i << 2)), pageSize, base, end);
    if (next == CONTENT_OTHER) return -1;
    let isMore = length > 0 && next == content && page == lastPage + 1;
    if (isMore && next == CONTENT_DATA) {
      const isContiguous = at == lastData + pageSize;
      if (length == 1) type = isContiguous ? RUN_IN_PLACE : RUN_SCATTERED;
      else if (type == RUN_IN_PLACE) isMore = isContiguous;
    }
    if (isMore) {
      length++;
    } else {
      if (length > 0) store<u32>(runs + (found++ << 2), (length << 2) | type);
      length = 1;
      content = next;
      type = next == CONTENT_ZERO ? RUN_ZERO : RUN_IN_PLACE;
    }
    lastPage = page;
    lastData = at;
  }
  if (length > 0) store<u32>(runs + (found++ << 2), (length << 2) | type);
  return found;
}

/** Copies the pages at the addresses in a table to `out`, one behind the other. */
export function gatherPages(table: usize, pageSize: u32, count: u32, out: usize): void {
  for (let i: u32 = 0; i < count; i++) memory.copy(out + i * pageSize, load<u32>(table + (i << 2)), pageSize);
}
