/**
 * CRC-32 of pages: what QEMU's dirty-rate measurement used before 8.1 (`docs/formats/dirty-rate.md`).
 *
 * The CRC of gzip (polynomial 0xedb88320, reflected, inverted before and after), 8 bytes per step by eight tables:
 * table k is the effect of a byte that is followed by k others. Nothing is checked here: the caller vouches for the
 * ranges and for a page size that is a multiple of 8.
 */
const POLYNOMIAL: u32 = 0xedb88320;
const TABLE_BYTES: usize = 256 * 4;

/**
 * Filled when the module starts, only read thereafter: workers that share a memory write the same bytes here, each
 * before its own first call.
 */
const tables: usize = memory.data(8192, 8);

function fillTables(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (POLYNOMIAL & (0 - (crc & 1)));
    store<u32>(tables + (byte << 2), crc);
  }
  for (let at: usize = TABLE_BYTES; at < 8 * TABLE_BYTES; at += 4) {
    const crc = load<u32>(tables + at - TABLE_BYTES);
    store<u32>(tables + at, (crc >> 8) ^ load<u32>(tables + ((crc & 0xff) << 2)));
  }
}
fillTables();

/** The effect of the byte whose value times 4 is in bits 2 to 9 of `index`, by table `k`. */
// @ts-ignore: decorator
@inline
function effect(index: u64, k: usize): u32 {
  return load<u32>(tables + k * TABLE_BYTES + (<usize>index & 0x3fc));
}

/** The next 8 bytes. */
// @ts-ignore: decorator
@inline
function advance(crc: u32, at: usize): u32 {
  const word = load<u64>(at) ^ <u64>crc;
  return (
    effect(word << 2, 7) ^ effect(word >> 6, 6) ^ (effect(word >> 14, 5) ^ effect(word >> 22, 4)) ^
    (effect(word >> 30, 3) ^ effect(word >> 38, 2) ^ (effect(word >> 46, 1) ^ effect(word >> 54, 0)))
  );
}

/** Two pages at a time: each step of one waits for its step before, so the other fills the time. */
// @ts-ignore: decorator
@inline
function crcPages(base: usize, isTable: bool, pageSize: u32, count: u32, crcs: usize): void {
  for (let i: u32 = 0; i < count; i += 2) {
    // An odd last page is done twice at once.
    const j = i + 1 < count ? i + 1 : i;
    const a = isTable ? <usize>load<u32>(base + (i << 2)) : base + i * pageSize;
    const b = isTable ? <usize>load<u32>(base + (j << 2)) : base + j * pageSize;
    let crcA: u32 = 0xffffffff;
    let crcB: u32 = 0xffffffff;
    for (let at: u32 = 0; at < pageSize; at += 8) {
      crcA = advance(crcA, a + at);
      crcB = advance(crcB, b + at);
    }
    store<u32>(crcs + (i << 2), ~crcA);
    store<u32>(crcs + (j << 2), ~crcB);
  }
}

/** The CRCs of `count` contiguous pages, into `crcs` (u32). */
export function crc32Pages(pages: usize, pageSize: u32, count: u32, crcs: usize): void {
  crcPages(pages, false, pageSize, count, crcs);
}

/** As `crc32Pages`, with page `i` at the address in `table[i]` (u32). */
export function crc32PagesGather(table: usize, pageSize: u32, count: u32, crcs: usize): void {
  crcPages(table, true, pageSize, count, crcs);
}
