/**
 * The common records of a stream (docs/formats/ram.md, "Records"): whole and zero pages of the block of the record before.
 *
 *     be64 offset in the block | flags      then the page, or one zero byte
 *
 * All others, and everything that is wrong, is left to `src/wire/ram-record.ts`.
 */

/** Flags of records, as in `src/wire/ram-record.ts`. */
const FLAG_ZERO: u32 = 0x002;
const FLAG_PAGE: u32 = 0x008;
const FLAG_CONTINUE: u32 = 0x020;

/** Kinds of records, as in `src/kernel/page-batch.ts`. */
const KIND_ZERO: u8 = 1;
const KIND_DATA: u8 = 2;

/**
 * Appends records to the tables of a batch, up to the first one that is cut at `limit`, of another kind, not behind
 * `lastPage`, or at `usedLength` or beyond. `base` is what an address lacks to an offset in the source. Returns how many
 * records the batch has.
 */
export function ramRecords(
  at: usize,
  limit: usize,
  base: f64,
  pageSize: u32,
  lastPage: f64,
  usedLength: f64,
  count: u32,
  capacity: u32,
  kinds: usize,
  pages: usize,
  offsets: usize,
  sizes: usize,
  data: usize,
  lengths: usize,
): u32 {
  const mask = <u64>(pageSize - 1);
  const shift = ctz<u32>(pageSize);
  while (count < capacity && limit - at >= 9) {
    const word = bswap<u64>(load<u64>(at));
    const flags = <u32>(word & mask);
    const isZero = flags == (FLAG_ZERO | FLAG_CONTINUE);
    if (!isZero && flags != (FLAG_PAGE | FLAG_CONTINUE)) break;
    const address = word & ~mask;
    const page = <f64>(address >> shift);
    if (page <= lastPage || <f64>address >= usedLength) break;
    const payload = at + 8;
    const length: u32 = isZero ? 0 : pageSize;
    const step: u32 = isZero ? 1 : pageSize;
    if (<u32>(limit - payload) < step || (isZero && load<u8>(payload) != 0)) break;
    store<u8>(kinds + count, isZero ? KIND_ZERO : KIND_DATA);
    store<f64>(pages + (count << 3), page);
    store<f64>(offsets + (count << 3), base + <f64>at);
    store<u32>(sizes + (count << 2), 8 + step);
    store<u32>(data + (count << 2), <u32>payload);
    store<u32>(lengths + (count << 2), length);
    count++;
    lastPage = page;
    at = payload + step;
  }
  return count;
}
