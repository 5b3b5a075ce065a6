/**
 * CRC-32 of pages: the page hash of QEMU's dirty-rate measurement before 8.1 (`docs/formats/dirty-rate.md`).
 *
 * The CRC of gzip (polynomial 0xedb88320, reflected, inverted before and after), 8 bytes per step with eight tables:
 * table k is the effect of a byte that is followed by k others. No argument checks here: the caller guarantees the
 * ranges and a page size that is a multiple of 8.
 */
const POLYNOMIAL: u32 = 0xedb88320;
const TABLE_BYTES: usize = 256 * 4;

/**
 * Address of the tables, which come first in the module's memory. As a constant it becomes part of each load; a
 * separate addition would take a quarter of the time.
 *
 * They are filled when the module starts and only read after that. Workers that share a memory all write the same bytes
 * here, each before its own first call.
 */
const TABLES: usize = 1024;
const tables: usize = memory.data(8192, 8);

function fillTables(): void {
  if (tables != TABLES) unreachable();
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

/** Address of table k. */
const T0: usize = TABLES;
const T1: usize = T0 + 1024;
const T2: usize = T1 + 1024;
const T3: usize = T2 + 1024;
const T4: usize = T3 + 1024;
const T5: usize = T4 + 1024;
const T6: usize = T5 + 1024;
const T7: usize = T6 + 1024;

/** The next 8 bytes; each is looked up in the table for the number of bytes that follow it. */
// @ts-ignore: decorator
@inline
function advance(crc: u32, at: usize): u32 {
  const low = load<u32>(at) ^ crc;
  const high = load<u32>(at, 4);
  const a = load<u32>((low << 2) & 0x3fc, T7) ^ load<u32>((low >> 6) & 0x3fc, T6);
  const b = load<u32>((low >> 14) & 0x3fc, T5) ^ load<u32>((low >> 22) & 0x3fc, T4);
  const c = load<u32>((high << 2) & 0x3fc, T3) ^ load<u32>((high >> 6) & 0x3fc, T2);
  const d = load<u32>((high >> 14) & 0x3fc, T1) ^ load<u32>((high >> 22) & 0x3fc, T0);
  return a ^ b ^ (c ^ d);
}

/** Two pages at a time: each step waits for the previous step of its page, so the other page fills the time. */
// @ts-ignore: decorator
@inline
function crcPages(base: usize, isTable: bool, pageSize: u32, count: u32, crcs: usize): void {
  for (let i: u32 = 0; i < count; i += 2) {
    // An odd last page is paired with itself.
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

/** Like `crc32Pages`, but page `i` is at the address in `table[i]` (u32). */
export function crc32PagesGather(table: usize, pageSize: u32, count: u32, crcs: usize): void {
  crcPages(table, true, pageSize, count, crcs);
}
