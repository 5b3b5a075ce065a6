/**
 * What the kernel module exports, under the same names in both builds (`assembly/index.ts`).
 *
 * Addresses and sizes are bytes in the imported memory. Nothing is checked on the other side: `kernel.ts` is where the
 * arguments are judged.
 */
export interface KernelExports {
  /** The first address that holds none of the module's own data. */
  readonly HEAP_BASE: WebAssembly.Global<'i32'>;

  /** Page sizes of the zero scan are multiples of this. */
  readonly ZERO_SCAN_STEP: WebAssembly.Global<'i32'>;
  zeroScan(pages: number, pageSize: number, count: number, bitmap: number): number;
  zeroScanGather(table: number, pageSize: number, count: number, bitmap: number): number;

  readonly XBZRLE_TRUNCATED: WebAssembly.Global<'i32'>;
  readonly XBZRLE_BAD_ULEB: WebAssembly.Global<'i32'>;
  readonly XBZRLE_EMPTY_RUN: WebAssembly.Global<'i32'>;
  readonly XBZRLE_RUN_BEYOND_PAGE: WebAssembly.Global<'i32'>;
  readonly XBZRLE_LITERAL_BEYOND_INPUT: WebAssembly.Global<'i32'>;
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
