/**
 * Reads the RAM of a VM in block order and yields its pages as batches: all of them, or the dirty ones. `passes.ts` sends
 * them.
 */
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import { isBitSet } from '../vm/bits.ts';
import type { PageBitmap } from '../vm/page-bitmap.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** Bytes of pages read at a time. */
const windowBytes = 1 << 20;
/** The most zero pages in a batch, and the most pages of the smallest size read at a time. */
const batchCapacity = 4096;
/** Bytes of a kernel's arena that a scan needs. */
export const ramScanArenaBytes = arenaBytes(windowBytes, batchCapacity / 8) + pageBatchArenaBytes(batchCapacity);

/** How many pages of a block have each state. */
export interface ScannedBlock {
  readonly block: RamBlock;
  dataPages: number;
  zeroPages: number;
  /** Never sent by the source, and therefore not sent again. */
  absentPages: number;
  /** Records made of these pages. */
  records: number;
}

/** Reads RAM content window by window, finds its zero pages, and makes batches of page records. */
export class RamScan {
  readonly #kernel: Kernel;
  readonly #window: number;
  /** Which pages of the window are zero. */
  readonly #zeros: Uint8Array;
  readonly #batch: PageBatch;
  /** Which pages of the window are dirty. */
  readonly #wanted = new Uint8Array(batchCapacity);

  /** Allocates its buffers in the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#window = kernel.allocate(windowBytes);
    const zeros = kernel.allocate(batchCapacity / 8);
    this.#zeros = kernel.bytes.subarray(zeros, zeros + batchCapacity / 8);
    this.#batch = new PageBatch(kernel, batchCapacity);
  }

  /**
   * Yields a block's pages in ascending order. Each batch is valid until the next is requested. Pages without data come
   * as zero pages. Pages that were never sent do not come.
   *
   * With a bitmap, only pages whose bits are set come, from page `from` on. Their bits are cleared before the pages are
   * read. A batch then has at most `pagesRead` pages that were read.
   * @throws RangeError if `nextData` finds pages before the requested ones, or beyond the block.
   */
  async *pages(
    ram: RamReader,
    counts: ScannedBlock,
    dirty?: PageBitmap,
    pagesRead = batchCapacity,
    from = 0,
  ): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    const pages = pageCount(block);
    const limit = Math.min(pagesRead, windowBytes / block.pageSize);
    if (dirty === undefined) ram.willRead?.(block, 0, pages);
    for (let page = from; page < pages; ) {
      page = dirty?.nextSet(page) ?? page;
      if (page >= pages) return;
      const first = await this.#nextData(ram, block, page);
      while (page < first) {
        page = this.#gatherZeros(ram, counts, page, first, dirty);
        if (this.#batch.count > 0) yield this.#batch;
      }
      if (first === pages) return;
      if (dirty?.has(first) === false) continue;
      // Runs may be as short as one page. The pages between them are read together with them.
      const most = Math.min(limit, pages - first);
      const count = dirty === undefined ? most : this.#take(dirty, first, most);
      await ram.read(block, first, this.#kernel.bytes.subarray(this.#window, this.#window + count * block.pageSize));
      this.#gatherWindow(ram, counts, first, count, dirty !== undefined);
      if (this.#batch.count > 0) yield this.#batch;
      page = first + count;
    }
  }

  async #nextData(ram: RamReader, block: RamBlock, page: number): Promise<number> {
    const { first } = await ram.nextData(block, page, 1);
    const pages = pageCount(block);
    if (Number.isInteger(first) && first >= page && first <= pages) return first;
    const expected = `expected nextData of "${block.idstr}" to find a page from ${page} on, or ${pages} for none`;
    throw new RangeError(`${expected}, got ${first}`);
  }

  /**
   * Records which of `most` pages are dirty, and marks them as clean. Returns the number of pages up to the last dirty
   * one.
   */
  #take(dirty: PageBitmap, first: number, most: number): number {
    this.#wanted.fill(0);
    let count = 0;
    for (let page = first; page < first + most; page = dirty.nextSet(page + 1)) {
      this.#wanted[page - first] = 1;
      dirty.clear(page);
      count = page - first + 1;
    }
    return count;
  }

  /** Collects zero pages from `page` on, below `end`. Returns the first page that was not examined. */
  #gatherZeros(ram: RamReader, counts: ScannedBlock, page: number, end: number, dirty?: PageBitmap): number {
    const batch = this.#batch;
    batch.clear();
    let at = page;
    while (at < end && batch.count < batch.capacity) {
      this.#pushZero(ram, counts, at);
      dirty?.clear(at);
      at = dirty?.nextSet(at + 1) ?? at + 1;
    }
    counts.records += batch.count;
    return at;
  }

  /** Collects the pages of the window: `count` from `first` on, or only the dirty ones among them. */
  #gatherWindow(ram: RamReader, counts: ScannedBlock, first: number, count: number, isChosen: boolean): void {
    const { pageSize } = counts.block;
    const batch = this.#batch;
    batch.clear();
    this.#kernel.zeroScan(this.#window, pageSize, count, this.#zeros.byteOffset);
    for (let i = 0; i < count; i++) {
      if (isChosen && this.#wanted[i] === 0) continue;
      if (isBitSet(this.#zeros, i)) {
        this.#pushZero(ram, counts, first + i);
        continue;
      }
      batch.push(PageKind.data, first + i, 0, 0, this.#window + i * pageSize, pageSize);
      counts.dataPages++;
    }
    counts.records += batch.count;
  }

  #pushZero(ram: RamReader, counts: ScannedBlock, page: number): void {
    if (ram.isAbsent?.(counts.block, page) === true) {
      counts.absentPages++;
      return;
    }
    this.#batch.push(PageKind.zero, page, 0, 0, 0, 0);
    counts.zeroPages++;
  }
}
