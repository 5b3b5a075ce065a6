/** The kernel room's face: the module loader with its arena, and batches of pages that live in it. */
export {
  Kernel,
  type KernelOptions,
  type KernelVariant,
  loadKernel,
  type XbzrleFault,
} from './kernel.ts';
export { PageBatch, PageKind } from './page-batch.ts';
