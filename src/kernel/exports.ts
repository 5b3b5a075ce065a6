/**
 * What the kernel module exports, under the same names in both builds (`assembly/index.ts`).
 *
 * Addresses and sizes are bytes in the imported memory. The module checks nothing; `kernel.ts` checks the arguments.
 */

/** A number that the module exports. */
interface Constant {
  readonly value: number;
}

/** The functions and constants of the kernel module. */
export interface KernelExports {
  /** The first address after the module's own data. */
  readonly HEAP_BASE: Constant;

  /** Page sizes are multiples of this. Only the XBZRLE decoder accepts pages of any size. */
  readonly ZERO_SCAN_STEP: Constant;
  zeroScan(pages: number, pageSize: number, count: number, bitmap: number): number;
  zeroScanGather(table: number, pageSize: number, count: number, bitmap: number): number;

  comparePages(as: number, bs: number, pageSize: number, count: number, bitmap: number): number;
  comparePagesGather(as: number, bs: number, pageSize: number, count: number, bitmap: number): number;
  hashPages(pages: number, pageSize: number, count: number, hashes: number): void;
  hashPages64(pages: number, pageSize: number, count: number, hashes: number): void;
  hashPagesGather(table: number, pageSize: number, count: number, hashes: number): void;
  crc32Pages(pages: number, pageSize: number, count: number, crcs: number): void;
  crc32PagesGather(table: number, pageSize: number, count: number, crcs: number): void;
  firstOutside(table: number, count: number, byteLength: number, base: number, end: number): number;
  firstOutsideOf(table: number, lengths: number, count: number, base: number, end: number): number;
  firstWithin(table: number, count: number, byteLength: number, from: number, to: number): number;
  /** Types of runs. */
  readonly RUN_ZERO: Constant;
  readonly RUN_IN_PLACE: Constant;
  readonly RUN_SCATTERED: Constant;
  pageRuns(
    kinds: number,
    pages: number,
    data: number,
    lengths: number,
    count: number,
    pageSize: number,
    pagesInBlock: number,
    base: number,
    end: number,
    runs: number,
  ): number;
  gatherPages(table: number, pageSize: number, count: number, out: number): void;
  ramRecords(
    at: number,
    limit: number,
    base: number,
    pageSize: number,
    lastPage: number,
    usedLength: number,
    count: number,
    capacity: number,
    kinds: number,
    pages: number,
    offsets: number,
    sizes: number,
    data: number,
    lengths: number,
  ): number;
  countBits(bitmap: number, byteLength: number): number;
  find(text: number, length: number, pattern: number, size: number, first: number, second: number): number;

  readonly XBZRLE_OVERFLOW: Constant;
  /** The largest page that the encoder accepts. */
  readonly XBZRLE_MAX_PAGE: Constant;
  /** Bytes after its output that the encoder overwrites. */
  readonly XBZRLE_ENCODE_SLACK: Constant;
  xbzrleEncode(old: number, next: number, pageSize: number, out: number, limit: number): number;
  xbzrleEncodeBatch(
    olds: number,
    news: number,
    count: number,
    pageSize: number,
    limit: number,
    out: number,
    results: number,
  ): number;

  readonly XBZRLE_TRUNCATED: Constant;
  readonly XBZRLE_BAD_ULEB: Constant;
  readonly XBZRLE_EMPTY_RUN: Constant;
  readonly XBZRLE_RUN_BEYOND_PAGE: Constant;
  readonly XBZRLE_LITERAL_BEYOND_INPUT: Constant;
  xbzrleDecode(source: number, length: number, page: number, pageSize: number): number;
  xbzrleCheck(source: number, length: number, pageSize: number): number;
  xbzrleDecodeBatch(
    sources: number,
    lengths: number,
    pages: number,
    count: number,
    pageSize: number,
    results: number,
  ): number;
  xbzrleCheckBatch(sources: number, lengths: number, count: number, pageSize: number, results: number): number;
}
