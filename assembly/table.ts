/**
 * Tables of addresses, judged before another kernel follows them: the loops of `src/kernel/kernel.ts` that would cost as
 * much in JavaScript as the decoding of a small delta does here. The tables themselves are in range, and `end` is below
 * 2^32, so nothing overflows that matters.
 */

/** The first of `count` entries whose `byteLength` bytes do not lie within `base..end`; `count` if all do. */
export function firstOutside(table: usize, count: u32, byteLength: u32, base: u32, end: u32): u32 {
  if (byteLength > end - base) return 0;
  const room = end - base - byteLength;
  for (let i: u32 = 0; i < count; i++) {
    if (load<u32>(table + (i << 2)) - base > room) return i;
  }
  return count;
}

/** As `firstOutside`, with the lengths in a table of their own. */
export function firstOutsideOf(table: usize, lengths: usize, count: u32, base: u32, end: u32): u32 {
  for (let i: u32 = 0; i < count; i++) {
    const at = load<u32>(table + (i << 2));
    if (at < base || <u64>at + load<u32>(lengths + (i << 2)) > end) return i;
  }
  return count;
}

/** The first of `count` entries, all in range, whose `byteLength` bytes share one with `from..to`; `count` if none. */
export function firstWithin(table: usize, count: u32, byteLength: u32, from: u32, to: u32): u32 {
  for (let i: u32 = 0; i < count; i++) {
    const at = load<u32>(table + (i << 2));
    if (at < to && <u64>at + byteLength > from) return i;
  }
  return count;
}
