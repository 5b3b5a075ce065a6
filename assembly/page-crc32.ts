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

/** The effect of byte `n` of a word, by table `k`. */
// @ts-ignore: decorator
@inline
function effect(word: u64, n: u64, k: usize): u32 {
  return load<u32>(tables + k * TABLE_BYTES + ((<usize>(word >> (n << 3)) & 0xff) << 2));
}

// @ts-ignore: decorator
@inline
function crcPage(page: usize, pageSize: u32): u32 {
  let crc: u32 = 0xffffffff;
  const end = page + pageSize;
  for (let at = page; at < end; at += 8) {
    const word = load<u64>(at) ^ (<u64>crc);
    crc =
      effect(word, 0, 7) ^ effect(word, 1, 6) ^ (effect(word, 2, 5) ^ effect(word, 3, 4)) ^
      (effect(word, 4, 3) ^ effect(word, 5, 2) ^ (effect(word, 6, 1) ^ effect(word, 7, 0)));
  }
  return ~crc;
}

/** The CRCs of `count` contiguous pages, into `crcs` (u32). */
export function crc32Pages(pages: usize, pageSize: u32, count: u32, crcs: usize): void {
  for (let i: u32 = 0; i < count; i++) store<u32>(crcs + (i << 2), crcPage(pages + i * pageSize, pageSize));
}

/** As `crc32Pages`, with page `i` at the address in `table[i]` (u32). */
export function crc32PagesGather(table: usize, pageSize: u32, count: u32, crcs: usize): void {
  for (let i: u32 = 0; i < count; i++) {
    store<u32>(crcs + (i << 2), crcPage(<usize>load<u32>(table + (i << 2)), pageSize));
  }
}
