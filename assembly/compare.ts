/**
 * Compare: which pages of two batches differ.
 *
 * Works like the zero scan: three sample bytes first (head, middle, tail), then 128 B steps that gather all differences
 * and test once per step. The result is a bitmap, least significant bit first: page i is bit `i & 7` of byte `i >> 3`,
 * 1 if the pages differ. No argument checks here: the caller guarantees the ranges and a page size that is a multiple
 * of 128.
 */
import { isSpanEqual } from './span';

// @ts-ignore: decorator
@inline
function isPageEqual(a: usize, b: usize, pageSize: u32): bool {
  const middle = pageSize >> 1;
  const tail = pageSize - 1;
  const head = load<u8>(a) ^ load<u8>(b);
  if (head | (load<u8>(a + middle) ^ load<u8>(b + middle)) | (load<u8>(a + tail) ^ load<u8>(b + tail))) return false;
  for (let at: u32 = 0; at < pageSize; at += 128) {
    if (!isSpanEqual(a + at, b + at)) return false;
  }
  return true;
}

/** Contiguous pages start at `as` and `bs`; otherwise (`isTable`, a compile-time constant) tables there list them. */
// @ts-ignore: decorator
@inline
function compare(as: usize, bs: usize, isTable: bool, pageSize: u32, count: u32, bitmap: usize): u32 {
  let differing: u32 = 0;
  let bits: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const a = isTable ? <usize>load<u32>(as + (i << 2)) : as + i * pageSize;
    const b = isTable ? <usize>load<u32>(bs + (i << 2)) : bs + i * pageSize;
    const differs = <u32>!isPageEqual(a, b, pageSize);
    differing += differs;
    bits |= differs << (i & 7);
    if ((i & 7) == 7) {
      store<u8>(bitmap + (i >> 3), bits);
      bits = 0;
    }
  }
  if (count & 7) store<u8>(bitmap + (count >> 3), bits);
  return differing;
}

/**
* Compares `count` contiguous pages with `count` others; returns how many differ. Clears the unused bits of the last
* bitmap byte.
*/
export function comparePages(as: usize, bs: usize, pageSize: u32, count: u32, bitmap: usize): u32 {
  return compare(as, bs, false, pageSize, count, bitmap);
}

/** Like `comparePages`, but page `i` of each side is at the address in word `i` of a table (u32). */
export function comparePagesGather(as: usize, bs: usize, pageSize: u32, count: u32, bitmap: usize): u32 {
  return compare(as, bs, true, pageSize, count, bitmap);
}
