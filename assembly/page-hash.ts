/**
 * The page hashes by which QEMU's dirty-rate measurement finds changed pages (`docs/formats/dirty-rate.md`).
 *
 * From 8.1 on: the low 32 bits of XXH64 with seed 1. Page sizes are multiples of 32, so the four lanes cover the whole
 * page and XXH64's tail steps are not needed. SIMD has no 64-bit integer multiplication, so both builds are the same.
 * No argument checks here: the caller guarantees the ranges and a page size that is a multiple of 32.
 */
const P1: u64 = 0x9e3779b185ebca87;
const P2: u64 = 0xc2b2ae3d27d4eb4f;
const P3: u64 = 0x165667b19e3779f9;
const P4: u64 = 0x85ebca77c2b2ae63;
const SEED: u64 = 1;

// @ts-ignore: decorator
@inline
function round(lane: u64, word: u64): u64 {
  return rotl<u64>(lane + word * P2, 31) * P1;
}

// @ts-ignore: decorator
@inline
function merge(hash: u64, lane: u64): u64 {
  return (hash ^ round(0, lane)) * P1 + P4;
}

// @ts-ignore: decorator
@inline
function hashPage(page: usize, pageSize: u32): u64 {
  let a: u64 = SEED + P1 + P2;
  let b: u64 = SEED + P2;
  let c: u64 = SEED;
  let d: u64 = SEED - P1;
  const end = page + pageSize;
  for (let at = page; at < end; at += 32) {
    a = round(a, load<u64>(at, 0));
    b = round(b, load<u64>(at, 8));
    c = round(c, load<u64>(at, 16));
    d = round(d, load<u64>(at, 24));
  }
  let hash = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
  hash = merge(merge(merge(merge(hash, a), b), c), d) + pageSize;
  hash = (hash ^ (hash >> 33)) * P2;
  hash = (hash ^ (hash >> 29)) * P3;
  return hash ^ (hash >> 32);
}

/** Hashes `count` contiguous pages into `hashes` (u32). */
export function hashPages(pages: usize, pageSize: u32, count: u32, hashes: usize): void {
  for (let i: u32 = 0; i < count; i++) store<u32>(hashes + (i << 2), <u32>hashPage(pages + i * pageSize, pageSize));
}

/** Like `hashPages`, but keeps all 64 bits of each hash (u64), which identify pages of the same content. */
export function hashPages64(pages: usize, pageSize: u32, count: u32, hashes: usize): void {
  for (let i: u32 = 0; i < count; i++) store<u64>(hashes + (i << 3), hashPage(pages + i * pageSize, pageSize));
}

/** Like `hashPages`, but page `i` is at the address in `table[i]` (u32). */
export function hashPagesGather(table: usize, pageSize: u32, count: u32, hashes: usize): void {
  for (let i: u32 = 0; i < count; i++) {
    store<u32>(hashes + (i << 2), <u32>hashPage(<usize>load<u32>(table + (i << 2)), pageSize));
  }
}
