/** Tests of 128 bytes at two addresses, the step in which the comparison and the XBZRLE encoder walk pages. */

/** Whether all 128 bytes are equal: gathers all differences and tests once (the scalar build: twice). */
// @ts-ignore: decorator
@inline
export function isSpanEqual(a: usize, b: usize): bool {
  if (ASC_FEATURE_SIMD) {
    const p = v128.or(v128.xor(v128.load(a, 0), v128.load(b, 0)), v128.xor(v128.load(a, 16), v128.load(b, 16)));
    const q = v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48)));
    const r = v128.or(v128.xor(v128.load(a, 64), v128.load(b, 64)), v128.xor(v128.load(a, 80), v128.load(b, 80)));
    const s = v128.or(v128.xor(v128.load(a, 96), v128.load(b, 96)), v128.xor(v128.load(a, 112), v128.load(b, 112)));
    return !v128.any_true(v128.or(v128.or(p, q), v128.or(r, s)));
  }
  const p = (load<u64>(a, 0) ^ load<u64>(b, 0)) | (load<u64>(a, 8) ^ load<u64>(b, 8));
  const q = (load<u64>(a, 16) ^ load<u64>(b, 16)) | (load<u64>(a, 24) ^ load<u64>(b, 24));
  const r = (load<u64>(a, 32) ^ load<u64>(b, 32)) | (load<u64>(a, 40) ^ load<u64>(b, 40));
  const s = (load<u64>(a, 48) ^ load<u64>(b, 48)) | (load<u64>(a, 56) ^ load<u64>(b, 56));
  if (p | q | r | s) return false;
  const t = (load<u64>(a, 64) ^ load<u64>(b, 64)) | (load<u64>(a, 72) ^ load<u64>(b, 72));
  const u = (load<u64>(a, 80) ^ load<u64>(b, 80)) | (load<u64>(a, 88) ^ load<u64>(b, 88));
  const v = (load<u64>(a, 96) ^ load<u64>(b, 96)) | (load<u64>(a, 104) ^ load<u64>(b, 104));
  const w = (load<u64>(a, 112) ^ load<u64>(b, 112)) | (load<u64>(a, 120) ^ load<u64>(b, 120));
  return (t | u | v | w) == 0;
}

/** Whether all 128 bytes differ. */
// @ts-ignore: decorator
@inline
export function isSpanUnlike(a: usize, b: usize): bool {
  if (ASC_FEATURE_SIMD) {
    const p = v128.or(equal16(a, b, 0), equal16(a, b, 16));
    const q = v128.or(equal16(a, b, 32), equal16(a, b, 48));
    const r = v128.or(equal16(a, b, 64), equal16(a, b, 80));
    const s = v128.or(equal16(a, b, 96), equal16(a, b, 112));
    return !v128.any_true(v128.or(v128.or(p, q), v128.or(r, s)));
  }
  let zeroes: u64 = 0;
  for (let at: usize = 0; at < 128; at += 32) {
    zeroes |= zeroBytes(a, b, at) | zeroBytes(a, b, at + 8) | zeroBytes(a, b, at + 16) | zeroBytes(a, b, at + 24);
  }
  return zeroes == 0;
}

// @ts-ignore: decorator
@inline
function equal16(a: usize, b: usize, at: usize): v128 {
  return i8x16.eq(v128.load(a + at), v128.load(b + at));
}

/** Nonzero if a byte is equal in both words (the lowest such byte has its highest bit set). */
// @ts-ignore: decorator
@inline
function zeroBytes(a: usize, b: usize, at: usize): u64 {
  const x = load<u64>(a + at) ^ load<u64>(b + at);
  return (x - 0x0101010101010101) & ~x & 0x8080808080808080;
}
