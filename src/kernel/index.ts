/**
 * The exports of `vmferry/kernel`: the kernels for pages in the caller's own buffers, the module loader with its arena,
 * and batches of pages in the arena.
 */
export {
  Kernel,
  type KernelMemory,
  type KernelOptions,
  type KernelVariant,
  loadKernel,
  type RecordSource,
  type RecordTables,
  type XbzrleFault,
} from './kernel.ts';
export { type BatchOrigin, PageBatch, PageKind } from './page-batch.ts';
export { loadPageKernels, PageKernels, type PageKernelsOptions } from './page-kernels.ts';
