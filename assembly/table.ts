/**
 * Checks of address tables before another kernel follows them. In JavaScript these loops of `src/kernel/kernel.ts`
 * would cost more than it costs to decode a small delta here.
 *
 * Nearly all tables are valid, so a whole table is checked first, four entries at once and without a branch. Only if
 * that fails does a second loop find the bad entry. Each check is one unsigned comparison: `x - low < width` is true
 * only for `low <= x < low + width`. The tables themselves are in range, and `end` is below 2^32, so no overflow
 * affects the result.
 */

/** The first of `count` entries whose `byteLength` bytes do not lie within `base..end`; `count` if all do. */
export function firstOutside(table: usize, count: u32, byteLength: u32, base: u32, end: u32): u32 {
  if (byteLength > end - base) return 0;
  const limit = end - base - byteLength;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const bases = i32x4.splat(base);
    const limits = i32x4.splat(limit);
    let bad = i32x4.splat(0);
    for (; i + 4 <= count; i += 4) {
      const past = i32x4.sub(v128.load(table + (i << 2)), bases);
      bad = v128.or(bad, i32x4.gt_u(past, limits));
    }
    if (v128.any_true(bad)) i = 0;
  }
  for (; i < count; i++) {
    if (load<u32>(table + (i << 2)) - base > limit) return i;
  }
  return count;
}

/** Like `firstOutside`, with the lengths in a second table. */
export function firstOutsideOf(table: usize, lengths: usize, count: u32, base: u32, end: u32): u32 {
  const limit = end - base;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const bases = i32x4.splat(base);
    const limits = i32x4.splat(limit);
    let bad = i32x4.splat(0);
    for (; i + 4 <= count; i += 4) {
      const past = i32x4.sub(v128.load(table + (i << 2)), bases);
      const tooLong = i32x4.gt_u(v128.load(lengths + (i << 2)), i32x4.sub(limits, past));
      bad = v128.or(bad, v128.or(i32x4.gt_u(past, limits), tooLong));
    }
    if (v128.any_true(bad)) i = 0;
  }
  for (; i < count; i++) {
    const past = load<u32>(table + (i << 2)) - base;
    if (past > limit || load<u32>(lengths + (i << 2)) > limit - past) return i;
  }
  return count;
}

/** The first of `count` entries, all in range, whose `byteLength` bytes overlap `from..to`; `count` if none does. */
export function firstWithin(table: usize, count: u32, byteLength: u32, from: u32, to: u32): u32 {
  if (from >= to || byteLength == 0) return count;
  // May wrap around, as may the subtractions below.
  const low = from - byteLength + 1;
  const width = to - low;
  // No address is that far from all of the range.
  if (width < to - from) return 0;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const lows = i32x4.splat(low);
    const widths = i32x4.splat(width);
    let found = i32x4.splat(0);
    for (; i + 4 <= count; i += 4) {
      found = v128.or(found, i32x4.lt_u(i32x4.sub(v128.load(table + (i << 2)), lows), widths));
    }
    if (v128.any_true(found)) i = 0;
  }
  for (; i < count; i++) {
    if (load<u32>(table + (i << 2)) - low < width) return i;
  }
  return count;
}
