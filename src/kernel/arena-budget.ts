/**
 * Computes how large an arena must be. Each component that allocates states its need with {@link arenaBytes}, from the
 * sizes of its allocations. `loadKernelFor` (`kernel.ts`) adds up the needs of the components that share a kernel.
 */

/** The default alignment of an allocation. Up to this many bytes before it stay unused. */
const alignment = 64;

/** Bytes after its output that the XBZRLE encoder may overwrite: at least `Kernel.xbzrleEncodeSlack`. */
export const encodeSlackBytes = 4608;

/** Bytes of the arena for allocations of these sizes (in bytes), including alignment. */
export function arenaBytes(...sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + Math.ceil(size) + alignment, 0);
}
