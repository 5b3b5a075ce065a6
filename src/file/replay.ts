/**
 * Sends a VM's RAM again: its pages as batches in block order, each page once. The whole of a VM is
 * `write-stream.ts`; this is what it is made of.
 */
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind } from '../kernel/page-batch.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** Bytes of pages that are read at once. */
const windowBytes = 1 << 20;
/** Records of zero pages in a batch, and pages of the least size that are read at once. */
const batchCapacity = 4096;
/** What a replay takes of a kernel's arena. */
export const replayArenaBytes = windowBytes + batchCapacity * 8 + batchCapacity / 8 + 4 * 64;

/** How many pages of a block were found to be what. */
export interface ReplayedBlock {
  readonly block: RamBlock;
  dataPages: number;
  zeroPages: number;
  /** Never sent by the source, so not sent again. */
  absentPages: number;
  /** Records that were made of them. */
  records: number;
}

export class Replay {
  readonly #kernel: Kernel;
  readonly #window: number;
  readonly #bitmap: number;
  readonly #batch: PageBatch;

  /** Takes its room from the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#window = kernel.allocate(windowBytes);
    this.#bitmap = kernel.allocate(batchCapacity / 8);
    this.#batch = new PageBatch(kernel, batchCapacity);
  }

  /**
   * A block's pages in ascending order, in batches that are valid until the next is asked for. Pages without data come as
   * zero, whatever was said of them before; those that were never sent do not come.
   */
  async *pages(ram: RamReader, counts: ReplayedBlock): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    const pages = pageCount(block);
    const most = windowBytes / block.pageSize;
    for (let page = 0; page < pages; ) {
      const { first } = await ram.nextData(block, page, 1);
      while (page < first) {
        page = this.#gatherZeros(ram, counts, page, first);
        if (this.#batch.count > 0) yield this.#batch;
      }
      if (first === pages) return;
      // Runs may be as short as a page: what is between them is read with them, in one go.
      const count = Math.min(most, pages - first);
      await ram.read(block, first, this.#kernel.bytes.subarray(this.#window, this.#window + count * block.pageSize));
      this.#gatherWindow(ram, counts, first, count);
      if (this.#batch.count > 0) yield this.#batch;
      page = first + count;
    }
  }

  /** Gathers zero pages from `page` on, below `end`. Returns the first that was not looked at. */
  #gatherZeros(ram: RamReader, counts: ReplayedBlock, page: number, end: number): number {
    const batch = this.#batch;
    batch.clear();
    let at = page;
    for (; at < end && batch.count < batch.capacity; at++) this.#pushZero(ram, counts, at);
    counts.records += batch.count;
    return at;
  }

  /** Gathers the pages of the window: `count` from `first` on. */
  #gatherWindow(ram: RamReader, counts: ReplayedBlock, first: number, count: number): void {
    const { bytes } = this.#kernel;
    const { pageSize } = counts.block;
    const batch = this.#batch;
    batch.clear();
    this.#kernel.zeroScan(this.#window, pageSize, count, this.#bitmap);
    for (let i = 0; i < count; i++) {
      if ((((bytes[this.#bitmap + (i >> 3)] as number) >> (i & 7)) & 1) === 1) {
        this.#pushZero(ram, counts, first + i);
        continue;
      }
      const record = batch.count++;
      batch.kind[record] = PageKind.data;
      batch.page[record] = first + i;
      batch.data[record] = this.#window + i * pageSize;
      batch.length[record] = pageSize;
      counts.dataPages++;
    }
    counts.records += batch.count;
  }

  #pushZero(ram: RamReader, counts: ReplayedBlock, page: number): void {
    if (ram.isAbsent?.(counts.block, page) === true) {
      counts.absentPages++;
      return;
    }
    const batch = this.#batch;
    const record = batch.count++;
    batch.kind[record] = PageKind.zero;
    batch.page[record] = page;
    batch.length[record] = 0;
    counts.zeroPages++;
  }
}
