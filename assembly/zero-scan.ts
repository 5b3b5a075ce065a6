/**
 * Zero scan: which pages of a batch contain only zero bytes.
 *
 * Three sample bytes of a page come first (head, middle, tail) and reject nearly every page in use; then come 128 B
 * steps that OR everything together and test once per step:
 *
 *     step   |  0 |  1 |  2 |  3 |  4 |  5 |  6 |  7 |    eight 16 B vectors (scalar: sixteen 8 B words)
 *               \__|_/    \__|_/   \__|_/    \__|_/
 *                  \_________/        \________/
 *                       \______ any bit? ______/
 *
 * The result is a bitmap, least significant bit first: page i is bit `i & 7` of byte `i >> 3`. No argument checks here:
 * the caller guarantees the ranges and a page size that is a multiple of 128.
 */

/** Bytes per step; page sizes are multiples of it. */
export const ZERO_SCAN_STEP: u32 = 128;

// @ts-ignore: decorator
@inline
function isStepZero(at: usize): bool {
  if (ASC_FEATURE_SIMD) {
    const a = v128.or(v128.load(at, 0), v128.load(at, 16));
    const b = v128.or(v128.load(at, 32), v128.load(at, 48));
    const c = v128.or(v128.load(at, 64), v128.load(at, 80));
    const d = v128.or(v128.load(at, 96), v128.load(at, 112));
    return !v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)));
  }
  const a = load<u64>(at, 0) | load<u64>(at, 8) | (load<u64>(at, 16) | load<u64>(at, 24));
  const b = load<u64>(at, 32) | load<u64>(at, 40) | (load<u64>(at, 48) | load<u64>(at, 56));
  const c = load<u64>(at, 64) | load<u64>(at, 72) | (load<u64>(at, 80) | load<u64>(at, 88));
  const d = load<u64>(at, 96) | load<u64>(at, 104) | (load<u64>(at, 112) | load<u64>(at, 120));
  return (a | b | (c | d)) == 0;
}

// @ts-ignore: decorator
@inline
export function isPageZero(page: usize, pageSize: u32): bool {
  if (load<u8>(page) | load<u8>(page + (pageSize >> 1)) | load<u8>(page + pageSize - 1)) return false;
  const end = page + pageSize;
  for (let at = page; at < end; at += ZERO_SCAN_STEP) {
    if (!isStepZero(at)) return false;
  }
  return true;
}

/**
 * Contiguous pages start at `base`; gathered ones are listed in the table at `base` (`isTable`, a compile-time
 * constant).
 */
// @ts-ignore: decorator
@inline
function scan(base: usize, isTable: bool, pageSize: u32, count: u32, bitmap: usize): u32 {
  let zeroes: u32 = 0;
  let bits: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const page = isTable ? <usize>load<u32>(base + (i << 2)) : base + i * pageSize;
    const isZero = <u32>isPageZero(page, pageSize);
    zeroes += isZero;
    bits |= isZero << (i & 7);
    if ((i & 7) == 7) {
      store<u8>(bitmap + (i >> 3), bits);
      bits = 0;
    }
  }
  if (count & 7) store<u8>(bitmap + (count >> 3), bits);
  return zeroes;
}

/** Scans `count` contiguous pages; returns how many are zero. Unused bits of the last bitmap byte are cleared. */
export function zeroScan(pages: usize, pageSize: u32, count: u32, bitmap: usize): u32 {
  return scan(pages, false, pageSize, count, bitmap);
}

/** Like `zeroScan`, but page `i` is at the address in `table[i]` (u32, any alignment). */
export function zeroScanGather(table: usize, pageSize: u32, count: u32, bitmap: usize): u32 {
  return scan(table, true, pageSize, count, bitmap);
}
