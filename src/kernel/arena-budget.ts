/**
 * How large an arena must be. Each component that allocates states its need, made with {@link arenaBytes} from the sizes of its
 * allocations; `loadKernelFor` (`kernel.ts`) adds up the needs of those that share a kernel.
 */

/** The default alignment of an allocation: up to this many bytes before it stay unused. */
const alignment = 64;

/** Bytes behind its output that the XBZRLE encoder may overwrite: at least `Kernel.xbzrleEncodeSlack`. */
export const encodeSlackBytes = 4608;

/** Bytes of the arena that allocations of these sizes (bytes) take, alignment included. */
export function arenaBytes(...sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + Math.ceil(size) + alignment, 0);
}
