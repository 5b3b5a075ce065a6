/**
 * The kernels, as one WebAssembly module: pure functions of (pointer, size) over imported memory, no allocation.
 * Built twice from this source, with and without SIMD (`ASC_FEATURE_SIMD`), under the same export names;
 * `src/kernel/exports.ts` declares their types. Arguments are not checked here but in `src/kernel/kernel.ts`.
 */
export { countBits } from './bitmap';
export { comparePages, comparePagesGather } from './compare';
export { crc32Pages, crc32PagesGather } from './page-crc32';
export { find } from './find';
export { hashPages, hashPages64, hashPagesGather } from './page-hash';
export { gatherPages, pageRuns, RUN_IN_PLACE, RUN_SCATTERED, RUN_ZERO } from './page-runs';
export { ramRecords } from './ram-records';
export { firstOutside, firstOutsideOf, firstWithin } from './table';
export { ZERO_SCAN_STEP, zeroScan, zeroScanGather } from './zero-scan';
export {
  XBZRLE_BAD_ULEB,
  XBZRLE_EMPTY_RUN,
  XBZRLE_LITERAL_BEYOND_INPUT,
  XBZRLE_RUN_BEYOND_PAGE,
  XBZRLE_TRUNCATED,
  xbzrleCheck,
  xbzrleCheckBatch,
  xbzrleDecode,
  xbzrleDecodeBatch,
} from './xbzrle-decode';
export {
  XBZRLE_ENCODE_SLACK,
  XBZRLE_MAX_PAGE,
  XBZRLE_OVERFLOW,
  xbzrleEncode,
  xbzrleEncodeBatch,
} from './xbzrle-encode';

/** The first address past the module's own data. */
export const HEAP_BASE: usize = __heap_base;
