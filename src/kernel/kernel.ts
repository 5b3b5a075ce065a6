/**
 * The kernels and the arena that they work in: one WebAssembly instance with its own memory of fixed size.
 *
 * The memory never grows, so views of it stay valid. The arguments are checked once per call (`checks.ts`), and the kernels
 * (`assembly/`) trust them. A `TypeError` means a wrong type. A `RangeError` means bytes outside the arena, or an
 * output that overlaps a table of addresses. The caller must otherwise keep pages and outputs apart: if they overlap,
 * the result is unspecified, but nothing outside the ranges is touched.
 */
import { checkInteger, KernelChecks, MAX_PAGE, MAX_XBZRLE_PAGE, WASM_PAGE } from './checks.ts';
import type { KernelExports } from './exports.ts';
import type { RecordSource, RecordTables } from './record-tables.ts';

export type KernelVariant = 'simd' | 'scalar';

/** Why an XBZRLE encoding was refused (`docs/formats/xbzrle.md`, section 2). */
export type XbzrleFault = 'truncated' | 'badUleb' | 'emptyRun' | 'runBeyondPage' | 'literalBeyondInput';

/** The count of a larger bitmap would not fit the result. */
const MAX_BITMAP_BYTES = 2 ** 29 - 1;
/** A position beyond this would not fit the signed result of a search. */
const MAX_TEXT_BYTES = 2 ** 31 - 1;

/** The memory that a kernel works in: a `WebAssembly.Memory` that does not grow. */
export interface KernelMemory {
  /** The bytes of the arena. */
  readonly buffer: ArrayBuffer;
  /** @throws RangeError, always: the memory has a fixed size. */
  grow(pages: number): number;
}

/** A kernel: the functions of the WebAssembly module, and the arena that they work in. */
export class Kernel {
  readonly variant: KernelVariant;
  readonly memory: KernelMemory;
  /** The whole arena. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Size of the arena in bytes. */
  readonly size: number;
  /** The first usable address. The bytes before it belong to the module, and no range may touch them. */
  readonly base: number;
  /** Page sizes are multiples of this, from 1 KiB to 64 KiB. Only the XBZRLE decoder accepts others. */
  readonly zeroScanStep: number;
  /** Types of the runs of `pageRuns`: pages of zeros, pages of data that are contiguous in the arena, and that are not. */
  readonly runType: Readonly<Record<'zero' | 'inPlace' | 'scattered', number>>;
  /** The (negative) result of the XBZRLE encoder if the encoding would exceed its limit. */
  readonly xbzrleOverflow: number;
  /** The largest page that the XBZRLE encoder accepts, in bytes. Its counts have 14 bits. */
  readonly xbzrleMaxPage: number;
  /** Bytes after its output that the XBZRLE encoder overwrites. */
  readonly xbzrleEncodeSlack: number;
  /** The (negative) result of the XBZRLE kernels for each fault. */
  readonly xbzrleCode: Readonly<Record<XbzrleFault, number>>;

  readonly #exports: KernelExports;
  readonly #check: KernelChecks;
  #next: number;

  constructor(variant: KernelVariant, memory: KernelMemory, exports: KernelExports) {
    const { buffer } = memory;
    this.variant = variant;
    this.memory = memory;
    this.bytes = new Uint8Array(buffer);
    this.size = buffer.byteLength;
    this.base = exports.HEAP_BASE.value;
    this.zeroScanStep = exports.ZERO_SCAN_STEP.value;
    this.runType = Object.freeze({
      zero: exports.RUN_ZERO.value,
      inPlace: exports.RUN_IN_PLACE.value,
      scattered: exports.RUN_SCATTERED.value,
    });
    this.xbzrleOverflow = exports.XBZRLE_OVERFLOW.value;
    this.xbzrleMaxPage = exports.XBZRLE_MAX_PAGE.value;
    this.xbzrleEncodeSlack = exports.XBZRLE_ENCODE_SLACK.value;
    this.xbzrleCode = Object.freeze({
      truncated: exports.XBZRLE_TRUNCATED.value,
      badUleb: exports.XBZRLE_BAD_ULEB.value,
      emptyRun: exports.XBZRLE_EMPTY_RUN.value,
      runBeyondPage: exports.XBZRLE_RUN_BEYOND_PAGE.value,
      literalBeyondInput: exports.XBZRLE_LITERAL_BEYOND_INPUT.value,
    });
    this.#exports = exports;
    this.#check = new KernelChecks(exports, buffer);
    this.#next = this.base;
  }

  /**
   * Allocates `byteLength` zero bytes of the arena, permanently, and returns their address.
   * @throws RangeError if the arena has no space left, or the alignment is not a power of two.
   */
  allocate(byteLength: number, alignment = 64): number {
    checkInteger('byteLength', byteLength, 0, this.size);
    checkInteger('alignment', alignment, 1, WASM_PAGE);
    if ((alignment & (alignment - 1)) !== 0) {
      throw new RangeError(`alignment: expected a power of two, got ${alignment}`);
    }
    const address = Math.ceil(this.#next / alignment) * alignment;
    if (address + byteLength <= this.size) {
      this.#next = address + byteLength;
      return address;
    }
    throw new RangeError(
      `arena of ${this.size} bytes is full: expected at most ${Math.max(0, this.size - address)} bytes, got ${byteLength}`,
    );
  }

  /** A view of `length` words of the arena at `address`. */
  u32(address: number, length: number): Uint32Array<ArrayBuffer> {
    this.#check.table('u32', address, length);
    return new Uint32Array(this.bytes.buffer, address, length);
  }

  /** A view of `length` signed words of the arena at `address`. */
  i32(address: number, length: number): Int32Array<ArrayBuffer> {
    this.#check.table('i32', address, length);
    return new Int32Array(this.bytes.buffer, address, length);
  }

  /**
   * Finds the zero pages among `count` contiguous pages, and sets their bits in the bitmap (page i is bit `i & 7` of
   * byte `i >> 3`; unused bits of the last byte become 0). Returns how many pages are zero.
   */
  zeroScan(pages: number, pageSize: number, count: number, bitmap: number): number {
    this.#check.batch(pageSize, count);
    this.#check.range('bitmap', bitmap, Math.ceil(count / 8));
    this.#check.range('pages', pages, count * pageSize);
    return this.#exports.zeroScan(pages, pageSize, count, bitmap) >>> 0;
  }

  /** Like `zeroScan`, but page i is at the address in word i of the u32 table. */
  zeroScanGather(table: number, pageSize: number, count: number, bitmap: number): number {
    this.#check.batch(pageSize, count);
    this.#check.range('bitmap', bitmap, Math.ceil(count / 8));
    this.#check.table('table', table, count);
    this.#check.apart('bitmap', bitmap, Math.ceil(count / 8), 'table', table, count);
    this.#check.pages('table', table, count, pageSize);
    return this.#exports.zeroScanGather(table, pageSize, count, bitmap) >>> 0;
  }

  /**
   * Compares `count` contiguous pages at `as` with `count` pages at `bs`, and sets the bits of the pages that differ.
   * The bitmap has the layout of `zeroScan`. Returns how many pages differ.
   */
  comparePages(as: number, bs: number, pageSize: number, count: number, bitmap: number): number {
    this.#check.batch(pageSize, count);
    this.#check.range('as', as, count * pageSize);
    this.#check.range('bs', bs, count * pageSize);
    this.#check.range('bitmap', bitmap, Math.ceil(count / 8));
    return this.#exports.comparePages(as, bs, pageSize, count, bitmap) >>> 0;
  }

  /** Like `comparePages`, but the pages i are at the addresses in word i of two u32 tables. */
  comparePagesGather(as: number, bs: number, pageSize: number, count: number, bitmap: number): number {
    this.#check.batch(pageSize, count);
    this.#check.table('as', as, count);
    this.#check.table('bs', bs, count);
    this.#check.range('bitmap', bitmap, Math.ceil(count / 8));
    this.#check.apart('bitmap', bitmap, Math.ceil(count / 8), 'as', as, count);
    this.#check.apart('bitmap', bitmap, Math.ceil(count / 8), 'bs', bs, count);
    this.#check.pages('as', as, count, pageSize);
    this.#check.pages('bs', bs, count, pageSize);
    return this.#exports.comparePagesGather(as, bs, pageSize, count, bitmap) >>> 0;
  }

  /** Writes the dirty-sampling hash of each of `count` contiguous pages to the u32 table at `hashes` (QEMU 8.1 and later). */
  hashPages(pages: number, pageSize: number, count: number, hashes: number): void {
    this.#check.batch(pageSize, count);
    this.#check.range('pages', pages, count * pageSize);
    this.#check.table('hashes', hashes, count);
    this.#exports.hashPages(pages, pageSize, count, hashes);
  }

  /**
   * Like `hashPages`, but with all 64 bits of each hash, low word first: two words per page in the u32 table at
   * `hashes`. Pages with the same hash have the same content, except for one pair in 2^64.
   */
  hashPages64(pages: number, pageSize: number, count: number, hashes: number): void {
    this.#check.batch(pageSize, count);
    this.#check.range('pages', pages, count * pageSize);
    this.#check.table('hashes', hashes, count * 2);
    this.#exports.hashPages64(pages, pageSize, count, hashes);
  }

  /** Like `hashPages`, but page i is at the address in word i of the u32 table. */
  hashPagesGather(table: number, pageSize: number, count: number, hashes: number): void {
    this.#check.batch(pageSize, count);
    this.#check.table('table', table, count);
    this.#check.table('hashes', hashes, count);
    this.#check.apart('hashes', hashes, count * 4, 'table', table, count);
    this.#check.pages('table', table, count, pageSize);
    this.#exports.hashPagesGather(table, pageSize, count, hashes);
  }

  /**
   * Writes the CRC-32 of each of `count` contiguous pages to the u32 table at `crcs`. QEMU before 8.1 uses this hash.
   */
  crc32Pages(pages: number, pageSize: number, count: number, crcs: number): void {
    this.#check.batch(pageSize, count);
    this.#check.range('pages', pages, count * pageSize);
    this.#check.table('crcs', crcs, count);
    this.#exports.crc32Pages(pages, pageSize, count, crcs);
  }

  /** Like `crc32Pages`, but page i is at the address in word i of the u32 table. */
  crc32PagesGather(table: number, pageSize: number, count: number, crcs: number): void {
    this.#check.batch(pageSize, count);
    this.#check.table('table', table, count);
    this.#check.table('crcs', crcs, count);
    this.#check.apart('crcs', crcs, count * 4, 'table', table, count);
    this.#check.pages('table', table, count, pageSize);
    this.#exports.crc32PagesGather(table, pageSize, count, crcs);
  }

  /**
   * Divides the records of a batch into runs of neighbouring pages that are treated alike, in the order of the records.
   * Writes a word for each to the u32 table at `runs`, which has space for all records: its records x 4 + `runType`. Returns
   * how many there are. Returns -1 if a record is neither a zero page nor a whole page of data, or is of no page of a block of
   * `pagesInBlock` pages.
   */
  pageRuns(batch: RecordTables, pageSize: number, pagesInBlock: number, runs: number): number {
    const { kindAddress, pageAddress, dataAddress, lengthAddress, count } = batch;
    this.#check.batch(pageSize, count);
    this.#check.records(batch, count);
    this.#check.table('runs', runs, count);
    const { base, size } = this;
    return this.#exports.pageRuns(
      kindAddress,
      pageAddress,
      dataAddress,
      lengthAddress,
      count,
      pageSize,
      pagesInBlock,
      base,
      size,
      runs,
    );
  }

  /** Copies pages to `out`, one behind the other. Page i is at the address in word i of the u32 table. */
  gatherPages(table: number, pageSize: number, count: number, out: number): void {
    this.#check.batch(pageSize, count);
    this.#check.table('table', table, count);
    this.#check.range('out', out, count * pageSize);
    this.#check.apart('out', out, count * pageSize, 'table', table, count);
    this.#check.pages('table', table, count, pageSize);
    this.#exports.gatherPages(table, pageSize, count, out);
  }

  /**
   * Appends whole and zero pages of a stream to a batch: the records from `at` on that continue the block of the one before,
   * up to the first other one, or one that is cut at `limit`. Returns how many records the batch then has.
   */
  ramRecords(batch: RecordTables, { at, limit, base, pageSize, lastPage, usedLength }: RecordSource): number {
    const { capacity, count, kindAddress, pageAddress, offsetAddress, sizeAddress, dataAddress, lengthAddress } = batch;
    this.#check.pageSize(pageSize, MAX_PAGE);
    this.#check.records(batch, capacity);
    this.#check.range('records', at, limit - at);
    return this.#exports.ramRecords(
      at,
      limit,
      base,
      pageSize,
      lastPage,
      usedLength,
      count,
      capacity,
      kindAddress,
      pageAddress,
      offsetAddress,
      sizeAddress,
      dataAddress,
      lengthAddress,
    );
  }

  /** Counts the set bits of `byteLength` bytes. The count is at most 2^32 - 1. */
  countBits(bitmap: number, byteLength: number): number {
    this.#check.range('bitmap', bitmap, byteLength);
    checkInteger('byteLength', byteLength, 0, MAX_BITMAP_BYTES);
    return this.#exports.countBits(bitmap, byteLength) >>> 0;
  }

  /**
   * Returns the first position in the `length` bytes at `text` where a pattern matches, or -1. At `pattern` are `size`
   * values, followed by as many masks. A byte matches if it equals the value in the bits of the mask. `first` and
   * `second` select the two bytes of the pattern that are tested first. The rarer they are in the text, the faster the
   * search.
   */
  find(text: number, length: number, pattern: number, size: number, first: number, second: number): number {
    this.#check.range('text', text, length);
    checkInteger('length', length, 0, MAX_TEXT_BYTES);
    checkInteger('size', size, 1, this.size);
    this.#check.range('pattern', pattern, 2 * size);
    checkInteger('first', first, 0, size - 1);
    checkInteger('second', second, 0, size - 1);
    return this.#exports.find(text, length, pattern, size, first, second);
  }

  /**
   * Encodes the page at `next` against its old content, byte for byte as QEMU does, into at most `limit` bytes at
   * `out`. It overwrites the `xbzrleEncodeSlack` bytes after them. QEMU's limit is the page size. Returns the length, 0
   * if the pages are equal, or `xbzrleOverflow`.
   * @throws RangeError for a page beyond `xbzrleMaxPage` bytes.
   */
  xbzrleEncode(old: number, next: number, pageSize: number, out: number, limit: number): number {
    this.#check.encoder(pageSize, limit);
    this.#check.range('old', old, pageSize);
    this.#check.range('next', next, pageSize);
    this.#check.range('out', out, limit + this.xbzrleEncodeSlack);
    return this.#exports.xbzrleEncode(old, next, pageSize, out, limit);
  }

  /**
   * Encodes `count` pages, `news[i]` against `olds[i]`, each within `limit` bytes. `news` and `olds` are u32 tables.
   * `results` is an i32 table, and receives each result. The encodings are stored back to back from `out`, where
   * `count * limit + xbzrleEncodeSlack` bytes may be overwritten. Returns the total number of bytes.
   * @throws RangeError for pages beyond `xbzrleMaxPage` bytes.
   */
  xbzrleEncodeBatch(
    olds: number,
    news: number,
    count: number,
    pageSize: number,
    limit: number,
    out: number,
    results: number,
  ): number {
    this.#check.encoder(pageSize, limit);
    this.#check.table('olds', olds, count);
    this.#check.table('news', news, count);
    this.#check.table('results', results, count);
    const outBytes = count * limit + this.xbzrleEncodeSlack;
    this.#check.range('out', out, outBytes);
    this.#check.apart('out', out, outBytes, 'olds', olds, count);
    this.#check.apart('out', out, outBytes, 'news', news, count);
    this.#check.apart('results', results, count * 4, 'olds', olds, count);
    this.#check.apart('results', results, count * 4, 'news', news, count);
    this.#check.pages('olds', olds, count, pageSize);
    this.#check.pages('news', news, count, pageSize);
    return this.#exports.xbzrleEncodeBatch(olds, news, count, pageSize, limit, out, results) >>> 0;
  }

  /**
   * Decodes an XBZRLE encoding onto the old content of a page. Returns where the last literal ends (0 for no input,
   * at most `pageSize`), or a negative code: see `xbzrleFault`. After a fault the page may be partly written.
   */
  xbzrleDecode(source: number, length: number, page: number, pageSize: number): number {
    this.#check.range('source', source, length);
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    this.#check.range('page', page, pageSize);
    return this.#exports.xbzrleDecode(source, length, page, pageSize);
  }

  /** Returns what `xbzrleDecode` would return for a page of this size, without a page. */
  xbzrleCheck(source: number, length: number, pageSize: number): number {
    this.#check.range('source', source, length);
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    return this.#exports.xbzrleCheck(source, length, pageSize);
  }

  /**
   * Decodes `count` encodings in order: the `lengths[i]` bytes at `sources[i]` onto the page at `pages[i]`. These three
   * are u32 tables. `results` is an i32 table, and receives each result. Returns how many failed.
   */
  xbzrleDecodeBatch(
    sources: number,
    lengths: number,
    pages: number,
    count: number,
    pageSize: number,
    results: number,
  ): number {
    this.#check.encodings(sources, lengths, count, pageSize, results);
    this.#check.table('pages', pages, count);
    this.#check.apart('results', results, count * 4, 'pages', pages, count);
    this.#check.pages('pages', pages, count, pageSize);
    // The tables are usually close together. One check covers all of them; only if it fails is each checked.
    const from = Math.min(sources, lengths, pages);
    const to = Math.max(sources, lengths, pages) + count * 4;
    if (this.#exports.firstWithin(pages, count, pageSize, from, to) >>> 0 < count) {
      for (const table of [sources, lengths, pages]) this.#check.pagesApart(pages, count, pageSize, table);
    }
    return this.#exports.xbzrleDecodeBatch(sources, lengths, pages, count, pageSize, results) >>> 0;
  }

  /** Like `xbzrleDecodeBatch`, without pages. */
  xbzrleCheckBatch(sources: number, lengths: number, count: number, pageSize: number, results: number): number {
    this.#check.encodings(sources, lengths, count, pageSize, results);
    return this.#exports.xbzrleCheckBatch(sources, lengths, count, pageSize, results) >>> 0;
  }

  /** The fault that a result of an XBZRLE kernel means; undefined if it decoded. */
  xbzrleFault(result: number): XbzrleFault | undefined {
    if (result >= 0) return undefined;
    return (Object.keys(this.xbzrleCode) as XbzrleFault[]).find((fault) => this.xbzrleCode[fault] === result);
  }
}
