/**
 * The exports of `vmferry/kernel`: the kernels for pages in the caller's own buffers, the module loader with its arena,
 * and batches of pages in the arena.
 */
export { Kernel, type KernelMemory, type KernelVariant, type XbzrleFault } from './kernel.ts';
export { type KernelOptions, loadKernel } from './load-kernel.ts';
export { type BatchOrigin, PageBatch, PageKind } from './page-batch.ts';
export { loadPageKernels, PageKernels, type PageKernelsOptions } from './page-kernels.ts';
export type { RecordSource, RecordTables } from './record-tables.ts';
