/** Counts over bitmaps. The processor counts 64 bits in one instruction, so SIMD would gain nothing. */

/** Counts the set bits of `byteLength` bytes. */
export function countBits(bitmap: usize, byteLength: u32): u32 {
  const end = bitmap + byteLength;
  let at = bitmap;
  let a: u64 = 0;
  let b: u64 = 0;
  let c: u64 = 0;
  let d: u64 = 0;
  for (; end - at >= 32; at += 32) {
    a += popcnt(load<u64>(at, 0));
    b += popcnt(load<u64>(at, 8));
    c += popcnt(load<u64>(at, 16));
    d += popcnt(load<u64>(at, 24));
  }
  for (; end - at >= 8; at += 8) a += popcnt(load<u64>(at));
  for (; at < end; at++) b += popcnt<u64>(load<u8>(at));
  return <u32>(a + b + c + d);
}
