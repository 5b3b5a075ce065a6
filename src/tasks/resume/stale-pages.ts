/**
 * Pages of a mapped-ram file whose bit is 0, which are zero, but that have other bytes at their place: the guest wrote them
 * while it was saved, and cleared them later. Whoever reads the file skips them. A QEMU that maps it would see them.
 *
 * Holes have no such bytes. Where the platform cannot tell holes from data, all bytes at places of zero pages are read.
 */
import { type Abortable, orAborted } from '../../io/abort.ts';
import { type ByteSource, readFully } from '../../io/byte-source.ts';
import { arenaBytes } from '../../kernel/arena-budget.ts';
import type { Kernel } from '../../kernel/kernel.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import type { MappedRamReader } from '../../store/mapped-ram-reader.ts';
import { isBitSet } from '../../vm/bits.ts';
import { PageBitmap } from '../../vm/page-bitmap.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { MappedBlock } from './mapped-blocks.ts';

/** Bytes read at a time, and the bits of the smallest pages in them. */
const windowBytes = 1 << 20;
const bitmapBytes = windowBytes / 1024 / 8;

/** The first byte from a position on that may be other than a hole; the end of the file if there is none. */
export type FindData = (position: number) => number;

/** Finds the stale pages of blocks, by block index. */
export async function findStalePages(
  source: ByteSource,
  ram: Pick<MappedRamReader, 'nextData'>,
  mapped: readonly MappedBlock[],
  { findData, signal }: Abortable & { findData?: FindData | undefined },
): Promise<Map<number, PageBitmap>> {
  const kernel = await loadKernelFor([arenaBytes(windowBytes, bitmapBytes)]);
  const scan = new StaleScan(kernel, source, findData);
  const stale = new Map<number, PageBitmap>();
  for (const { block, offset } of mapped) {
    const pages = pageCount(block);
    const found = new PageBitmap(block);
    for (let page = 0; page < pages; ) {
      signal?.throwIfAborted();
      const { first, end } = await ram.nextData(block, page, pages);
      await orAborted(scan.run(found, offset, block.pageSize, page, first), signal);
      page = end;
    }
    stale.set(block.index, found);
  }
  return stale;
}

class StaleScan {
  readonly #kernel: Kernel;
  readonly #source: ByteSource;
  readonly #findData: FindData | undefined;
  readonly #window: number;
  readonly #bits: Uint8Array;
  /** Up to here a hole was found. */
  #holeEnd = 0;

  constructor(kernel: Kernel, source: ByteSource, findData: FindData | undefined) {
    this.#kernel = kernel;
    this.#source = source;
    this.#findData = findData;
    this.#window = kernel.allocate(windowBytes);
    const bits = kernel.allocate(bitmapBytes);
    this.#bits = kernel.bytes.subarray(bits, bits + bitmapBytes);
  }

  /** Marks those of the pages `[first, end)` that have bytes. `start` is where the block begins. */
  async run(found: PageBitmap, start: number, pageSize: number, first: number, end: number): Promise<void> {
    for (let page = first; page < end; ) {
      const data = this.#dataFrom(start + page * pageSize);
      page = Math.max(page, Math.floor((data - start) / pageSize));
      if (page >= end) return;
      const count = Math.min(end - page, windowBytes / pageSize);
      const bytes = this.#kernel.bytes.subarray(this.#window, this.#window + count * pageSize);
      await readFully(this.#source, bytes, start + page * pageSize);
      const zeros = this.#kernel.zeroScan(this.#window, pageSize, count, this.#bits.byteOffset);
      if (zeros < count) for (let i = 0; i < count; i++) if (!isBitSet(this.#bits, i)) found.set(page + i);
      page += count;
    }
  }

  #dataFrom(position: number): number {
    if (this.#findData === undefined) return position;
    if (position >= this.#holeEnd) this.#holeEnd = this.#findData(position);
    return Math.max(position, this.#holeEnd);
  }
}
