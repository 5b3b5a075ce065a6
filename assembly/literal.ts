/** Byte copies for the XBZRLE kernels that never read or write outside the given bytes. */

/** From this length on, the engine's own copy is faster; below it, the call costs more than it saves. */
const LONG: u32 = 512;

/**
 * Copies a literal with stores that overlap but never leave it, so the buffers need no slack:
 *
 *     1..3      first, middle and last byte           17..32    first and last 16 B
 *     4..8      first and last 4 B                    33..64    first and last 32 B
 *     9..16     first and last 8 B                    65..511   64 B steps, then the last 64 B
 *
 * Literals are short and their lengths random, so the cost is in mispredicted branches, not in bytes stored twice. One
 * masked word for all of 1..8 would save a branch, but it reads the page back, which stalls on the store just before
 * it.
 */
// @ts-ignore: decorator
@inline
export function copyLiteral(to: usize, from: usize, length: u32): void {
  if (length > 16) {
    if (length <= 32) {
      const last = length - 16;
      copy16(to, from);
      copy16(to + last, from + last);
    } else if (length <= 64) {
      const last = length - 32;
      copy32(to, from);
      copy32(to + last, from + last);
    } else if (length < LONG) {
      const last = length - 64;
      for (let at: u32 = 0; at < last; at += 64) copy64(to + at, from + at);
      copy64(to + last, from + last);
    } else {
      memory.copy(to, from, length);
    }
  } else if (length > 8) {
    const last = length - 8;
    store<u64>(to, load<u64>(from));
    store<u64>(to + last, load<u64>(from + last));
  } else if (length > 3) {
    const last = length - 4;
    store<u32>(to, load<u32>(from));
    store<u32>(to + last, load<u32>(from + last));
  } else {
    const middle = length >> 1;
    const last = length - 1;
    store<u8>(to, load<u8>(from));
    store<u8>(to + middle, load<u8>(from + middle));
    store<u8>(to + last, load<u8>(from + last));
  }
}

// @ts-ignore: decorator
@inline
function copy64(to: usize, from: usize): void {
  copy32(to, from);
  copy32(to + 32, from + 32);
}

// @ts-ignore: decorator
@inline
function copy32(to: usize, from: usize): void {
  copy16(to, from);
  copy16(to + 16, from + 16);
}

/** Copies exactly 16 bytes. */
// @ts-ignore: decorator
@inline
export function copy16(to: usize, from: usize): void {
  if (ASC_FEATURE_SIMD) {
    v128.store(to, v128.load(from));
  } else {
    store<u64>(to, load<u64>(from));
    store<u64>(to, load<u64>(from, 8), 8);
  }
}
