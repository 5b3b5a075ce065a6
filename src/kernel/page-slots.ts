/**
 * The part of the arena that stores work in: page slots and tables. Stores collect runs and decode deltas in the slots
 * before they write them. Batched kernel calls take the tables. All stores on a kernel share one instance.
 */
import { arenaBytes } from './arena-budget.ts';
import type { Kernel } from './kernel.ts';
import { type PageBatch, PageKind } from './page-batch.ts';

/** Bytes of page slots: 256 pages of 4 KiB. */
const slotBytes = 1 << 20;
const maxSlots = 1024;
/** Direct I/O requires addresses that are multiples of this. */
const slotAlignment = 4096;

/** Bytes of a kernel's arena that the slots and tables need. */
export const pageSlotsArenaBytes = (batchCapacity: number): number =>
  arenaBytes(slotBytes + slotAlignment, ...tableSizes(Math.max(maxSlots, batchCapacity)));

/** Four tables of words, and a bitmap. */
const tableSizes = (length: number): number[] => [length * 4, length * 4, length * 4, length * 4, length / 8];

/** Whether the payload of a record is its page. */
export function hasWholePage(batch: PageBatch, record: number): boolean {
  const kind = batch.kind[record];
  return kind === PageKind.data || kind === PageKind.compressed;
}

/** Page-sized slots in the arena. Scattered pages go there before they are decoded or written. */
export class PageSlots {
  readonly kernel: Kernel;
  /** Arena address of slot 0. The slots follow each other, one page each. */
  readonly address: number;
  /** The bytes of the slots. */
  readonly bytes: Uint8Array;
  /** Tables for kernel calls, `tableLength` entries each. */
  readonly tableLength: number;
  readonly sources: Uint32Array;
  readonly lengths: Uint32Array;
  readonly pages: Uint32Array;
  readonly results: Int32Array;
  readonly bitmap: Uint8Array;
  readonly bitmapAddress: number;

  constructor(kernel: Kernel, batchCapacity: number) {
    this.kernel = kernel;
    this.address = kernel.allocate(slotBytes, slotAlignment);
    this.bytes = kernel.bytes.subarray(this.address, this.address + slotBytes);
    this.tableLength = Math.max(maxSlots, batchCapacity);
    const table = () => kernel.u32(kernel.allocate(this.tableLength * 4), this.tableLength);
    this.sources = table();
    this.lengths = table();
    this.pages = table();
    this.results = kernel.i32(kernel.allocate(this.tableLength * 4), this.tableLength);
    this.bitmapAddress = kernel.allocate(this.tableLength / 8);
    this.bitmap = kernel.bytes.subarray(this.bitmapAddress, this.bitmapAddress + this.tableLength / 8);
  }

  /**
   * Finds the records of a batch whose payload is a whole page of zeros, in one kernel call. Returns undefined if there
   * are none.
   */
  markZeroPages(batch: PageBatch, pageSize: number): Uint8Array | undefined {
    const { kernel, sources, bitmap, bitmapAddress, tableLength } = this;
    let count = 0;
    for (let i = 0; i < batch.count; i++) {
      if (!hasWholePage(batch, i)) continue;
      if (count === tableLength)
        throw new RangeError(`expected a batch of at most ${tableLength} whole pages, got more`);
      sources[count++] = batch.data[i] as number;
    }
    if (count === 0 || kernel.zeroScanGather(sources.byteOffset, pageSize, count, bitmapAddress) === 0)
      return undefined;
    const marks = new Uint8Array(batch.count);
    for (let i = 0, bit = 0; i < batch.count; i++) {
      if (!hasWholePage(batch, i)) continue;
      marks[i] = ((bitmap[bit >> 3] as number) >> (bit & 7)) & 1;
      bit++;
    }
    return marks;
  }

  /** The number of slots for pages of this size. */
  slots(pageSize: number): number {
    return Math.min(maxSlots, slotBytes / pageSize);
  }
}
