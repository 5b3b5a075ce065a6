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
import { recordHead } from '../wire/ram-record-encoder.ts';

/** Bytes of pages read at a time. */
const windowBytes = 1 << 20;
/** The most zero pages in a batch, and the most pages of the smallest size read at a time. */
const batchCapacity = 4096;
/** The most pages of the smallest size in a window, with room for the head of a record in front of each. */
const spacedBytes = windowBytes + (windowBytes / 1024) * recordHead;
/** Bytes of a kernel's arena that a scan needs. */
export const ramScanArenaBytes =
  arenaBytes(spacedBytes, spacedBytes, batchCapacity / 8) + pageBatchArenaBytes(batchCapacity);

/** What a scan needs of RAM. */
export type ScannedRam = Pick<RamReader, 'read' | 'readSpaced' | 'nextData' | 'willRead' | 'isAbsent'>;

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

/** Pages that were read, or are being read, into a window. */
interface WindowRead {
  /** Arena address of the window. */
  address: number;
  /** The first page. */
  first: number;
  /** How many pages there are, and the bytes of room in front of each. */
  done: Promise<{ count: number; room: number }>;
}

/** Reads RAM content window by window, finds its zero pages, and makes batches of page records. */
export class RamScan {
  readonly #kernel: Kernel;
  /** Arena addresses of two windows: one is read while the other is sent. */
  readonly #windows: readonly [number, number];
  /** Which pages of the window are zero. */
  readonly #zeros: Uint8Array;
  readonly #batch: PageBatch;
  /** Which pages of the window are dirty. */
  readonly #wanted = new Uint8Array(batchCapacity);

  readonly #findsZeros: boolean;

  /**
   * Allocates its buffers in the kernel's arena. With `findsZeros` false, zero pages come as data (zero-page-detection
   * `none`).
   */
  constructor(kernel: Kernel, { findsZeros = true } = {}) {
    this.#findsZeros = findsZeros;
    this.#kernel = kernel;
    this.#windows = [kernel.allocate(spacedBytes), kernel.allocate(spacedBytes)];
    const zeros = kernel.allocate(batchCapacity / 8);
    this.#zeros = kernel.bytes.subarray(zeros, zeros + batchCapacity / 8);
    this.#batch = new PageBatch(kernel, batchCapacity);
  }

  /**
   * Yields a block's pages in ascending order. Each batch is valid until the next is requested. Pages without data come
   * as zero pages. Pages that were never sent do not come.
   *
   * With a bitmap, only pages whose bits are set come, from page `from` on, before page `to`. Their bits are cleared
   * before the pages are read. A batch then has at most `pagesRead` pages that were read.
   * @throws RangeError if `nextData` finds pages before the requested ones, or beyond the block.
   */
  async *pages(
    ram: ScannedRam,
    counts: ScannedBlock,
    dirty?: PageBitmap,
    pagesRead = batchCapacity,
    from = 0,
    to = Number.POSITIVE_INFINITY,
  ): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    const pages = Math.min(to, pageCount(block));
    const limit = Math.min(pagesRead, windowBytes / block.pageSize);
    if (dirty !== undefined) {
      yield* this.#dirtyPages(ram, counts, dirty, limit, from, pages);
      return;
    }
    ram.willRead?.(block, 0, pages);
    let ahead: Promise<WindowRead> | undefined;
    let turn = 0;
    const readAhead = (page: number) => {
      turn = 1 - turn;
      ahead = this.#begin(ram, block, page, limit, this.#windows[turn] as number);
      // A failure is reported where the pages are needed.
      ahead.catch(() => {});
    };
    try {
      readAhead(from);
      for (let page = from; page < pages; ) {
        const { address, first, done } = await (ahead as Promise<WindowRead>);
        while (page < first) {
          page = this.#gatherZeros(ram, counts, page, first);
          if (this.#batch.count > 0) yield this.#batch;
        }
        if (first === pages) return;
        const { count, room } = await done;
        // What is read next begins behind it, also if it is shorter than was asked for.
        page = first + count;
        if (page < pages) readAhead(page);
        this.#gatherWindow(ram, counts, { address, first, count, room });
        if (this.#batch.count > 0) yield this.#batch;
      }
    } finally {
      // Nothing may be written to the arena afterwards.
      await ahead?.then(({ done }) => done).catch(() => {});
    }
  }

  /** Finds the next data pages from `page` on, and begins to read them. */
  async #begin(ram: ScannedRam, block: RamBlock, page: number, limit: number, address: number): Promise<WindowRead> {
    const first = this.#findsZeros ? await this.#nextData(ram, block, page) : page;
    // Runs may be as short as one page. The pages between them are read together with them.
    const most = Math.min(limit, pageCount(block) - first);
    const done = this.#read(ram, block, first, most, address);
    done.catch(() => {});
    return { address, first, done };
  }

  async #read(ram: ScannedRam, block: RamBlock, first: number, most: number, address: number) {
    const { bytes } = this.#kernel;
    const { pageSize } = block;
    if (most > 0 && ram.readSpaced !== undefined) {
      const target = bytes.subarray(address, address + most * (pageSize + recordHead));
      const count = await ram.readSpaced(block, first, target, recordHead);
      if (count > 0) return { count, room: recordHead };
    }
    if (most > 0) await ram.read(block, first, bytes.subarray(address, address + most * pageSize));
    return { count: most, room: 0 };
  }

  /** The pages whose bits are set, from `from` on, below `pages`. */
  async *#dirtyPages(
    ram: ScannedRam,
    counts: ScannedBlock,
    dirty: PageBitmap,
    limit: number,
    from: number,
    pages: number,
  ): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    const [address] = this.#windows;
    for (let page = from; page < pages; ) {
      page = dirty.nextSet(page);
      if (page >= pages) return;
      const first = this.#findsZeros ? Math.min(pages, await this.#nextData(ram, block, page)) : page;
      while (page < first) {
        page = this.#gatherZeros(ram, counts, page, first, dirty);
        if (this.#batch.count > 0) yield this.#batch;
      }
      if (first === pages) return;
      if (!dirty.has(first)) continue;
      // The pages between the dirty ones are read together with them.
      const count = this.#take(dirty, first, Math.min(limit, pages - first));
      await ram.read(block, first, this.#kernel.bytes.subarray(address, address + count * block.pageSize));
      this.#gatherWindow(ram, counts, { address, first, count, room: 0 }, true);
      if (this.#batch.count > 0) yield this.#batch;
      page = first + count;
    }
  }

  async #nextData(ram: ScannedRam, block: RamBlock, page: number): Promise<number> {
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
  #gatherZeros(ram: ScannedRam, counts: ScannedBlock, page: number, end: number, dirty?: PageBitmap): number {
    const batch = this.#batch;
    batch.clear();
    batch.room = 0;
    // Another scan may have taken the page meanwhile.
    let at = dirty?.nextSet(page) ?? page;
    while (at < end && batch.count < batch.capacity) {
      this.#pushZero(ram, counts, at);
      dirty?.clear(at);
      at = dirty?.nextSet(at + 1) ?? at + 1;
    }
    counts.records += batch.count;
    return at;
  }

  /** Collects the pages of a window, or only the dirty ones among them. */
  #gatherWindow(
    ram: ScannedRam,
    counts: ScannedBlock,
    { address, first, count, room }: { address: number; first: number; count: number; room: number },
    isChosen = false,
  ): void {
    const { pageSize } = counts.block;
    const batch = this.#batch;
    batch.clear();
    batch.room = room;
    for (let i = 0; i < count; i++) batch.data[i] = address + room + i * (pageSize + room);
    if (this.#findsZeros) this.#kernel.zeroScanGather(batch.dataAddress, pageSize, count, this.#zeros.byteOffset);
    for (let i = 0; i < count; i++) {
      if (isChosen && this.#wanted[i] === 0) continue;
      if (isBitSet(this.#zeros, i)) {
        this.#pushZero(ram, counts, first + i);
        continue;
      }
      batch.push(PageKind.data, first + i, 0, 0, address + room + i * (pageSize + room), pageSize);
      counts.dataPages++;
    }
    counts.records += batch.count;
  }

  #pushZero(ram: ScannedRam, counts: ScannedBlock, page: number): void {
    if (ram.isAbsent?.(counts.block, page) === true) {
      counts.absentPages++;
      return;
    }
    this.#batch.push(PageKind.zero, page, 0, 0, 0, 0);
    counts.zeroPages++;
  }
}
