/** Target page sizes: the unit in which pages are sent (docs/formats/stream.md, "Target page size"). */

/** In bytes: from 1 KiB (old Arm boards) to 64 KiB. */
export const pageSizes: readonly number[] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];

/** The rule in words, for errors. */
export const pageSizeRule = 'a power of two from 1024 to 65536';

/** Whether a target page can have this size in bytes. */
export function isPageSize(bytes: unknown): bytes is number {
  return (pageSizes as readonly unknown[]).includes(bytes);
}
