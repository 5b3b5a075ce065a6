/**
 * The kernel room's face, also as `vmferry/kernel`: the kernels for pages in buffers of one's own, the module loader
 * with its arena, and batches of pages that live in it.
 */
export {
  Kernel,
  type KernelMemory,
  type KernelOptions,
  type KernelVariant,
  loadKernel,
  type XbzrleFault,
} from './kernel.ts';
export { type BatchOrigin, PageBatch, PageKind } from './page-batch.ts';
export { loadPageKernels, PageKernels, type PageKernelsOptions } from './page-kernels.ts';
