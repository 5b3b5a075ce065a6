/**
 * Find: the first place where a pattern matches in a run of bytes.
 *
 * A pattern of `size` bytes is a table of `2 * size` bytes: the values, then a mask for each. Byte k matches where
 * `(byte & mask[k]) == value[k]`, so masks express wildcards and case-insensitive letters. Two bytes of the pattern,
 * the anchors, are tested at 64 places at once; the rest is compared only where both match:
 *
 *     text   |..a.........b..a...b............|      a at `first`, b at `second` in the pattern
 *               p + first ^   ^ p + second
 *     bits   |..........1..........0..........|      bit p: both match
 *
 * No argument checks here: the caller guarantees the ranges, anchors below `size`, and values that set no bits outside
 * their masks. Never reads beyond the text.
 */

// @ts-ignore: decorator
@inline
function fits(at: usize, pattern: usize, size: u32): bool {
  const masks = pattern + size;
  for (let k: u32 = 0; k < size; k++) {
    if ((load<u8>(at + k) & load<u8>(masks + k)) != load<u8>(pattern + k)) return false;
  }
  return true;
}

/** Marks the zero bytes of a word in their bits 7. May also mark a byte above a zero byte; never misses one. */
// @ts-ignore: decorator
@inline
function zeroBytes(word: u64): u64 {
  return (word - 0x0101010101010101) & ~word & 0x8080808080808080;
}

/** The first of the places in `0..length - size` where the pattern matches; -1 if none does. `size` is at least 1. */
export function find(text: usize, length: u32, pattern: usize, size: u32, first: u32, second: u32): i32 {
  if (length < size) return -1;
  const places = length - size + 1;
  const value1 = load<u8>(pattern + first);
  const value2 = load<u8>(pattern + second);
  const mask1 = load<u8>(pattern + size + first);
  const mask2 = load<u8>(pattern + size + second);
  let p: u32 = 0;

  if (ASC_FEATURE_SIMD) {
    const v1 = i8x16.splat(value1);
    const v2 = i8x16.splat(value2);
    const m1 = i8x16.splat(mask1);
    const m2 = i8x16.splat(mask2);
    const zero = i8x16.splat(0);
    for (; p + 64 <= places; p += 64) {
      const a = text + p + first;
      const b = text + p + second;
      // A byte is zero where both anchors match.
      const d0 = v128.or(v128.xor(v128.and(v128.load(a, 0), m1), v1), v128.xor(v128.and(v128.load(b, 0), m2), v2));
      const d1 = v128.or(v128.xor(v128.and(v128.load(a, 16), m1), v1), v128.xor(v128.and(v128.load(b, 16), m2), v2));
      const d2 = v128.or(v128.xor(v128.and(v128.load(a, 32), m1), v1), v128.xor(v128.and(v128.load(b, 32), m2), v2));
      const d3 = v128.or(v128.xor(v128.and(v128.load(a, 48), m1), v1), v128.xor(v128.and(v128.load(b, 48), m2), v2));
      if (i8x16.all_true(i8x16.min_u(i8x16.min_u(d0, d1), i8x16.min_u(d2, d3)))) continue;
      let bits =
        <u64>(<u32>i8x16.bitmask(i8x16.eq(d0, zero)) | (<u32>i8x16.bitmask(i8x16.eq(d1, zero)) << 16)) |
        (<u64>(<u32>i8x16.bitmask(i8x16.eq(d2, zero)) | (<u32>i8x16.bitmask(i8x16.eq(d3, zero)) << 16)) << 32);
      for (; bits != 0; bits &= bits - 1) {
        const place = p + <u32>ctz(bits);
        if (fits(text + place, pattern, size)) return place;
      }
    }
  } else {
    const v1 = <u64>value1 * 0x0101010101010101;
    const v2 = <u64>value2 * 0x0101010101010101;
    const m1 = <u64>mask1 * 0x0101010101010101;
    const m2 = <u64>mask2 * 0x0101010101010101;
    for (; p + 8 <= places; p += 8) {
      const at = text + p;
      let bits = zeroBytes(((load<u64>(at + first) & m1) ^ v1) | ((load<u64>(at + second) & m2) ^ v2));
      for (; bits != 0; bits &= bits - 1) {
        const place = p + (<u32>ctz(bits) >> 3);
        if (fits(text + place, pattern, size)) return place;
      }
    }
  }

  for (; p < places; p++) {
    const at = text + p;
    if ((load<u8>(at + first) & mask1) != value1 || (load<u8>(at + second) & mask2) != value2) continue;
    if (fits(at, pattern, size)) return p;
  }
  return -1;
}
