/**
 * A batch of page records, as tables. Decoders, kernels and stores exchange batches instead of one object per page.
 *
 * A record names its page and what it contains. The bytes stay in the arena. The tables are there too, so kernels use them
 * directly. A batch does not know its RAM block, and checks nothing that is
 * written to it.
 */
import { arenaBytes } from './arena-budget.ts';
import type { Kernel } from './kernel.ts';
import type { RecordTables } from './record-tables.ts';

/** What a record says about its page. */
export const PageKind = {
  /** No content: the source sent none. */
  absent: 0,
  /** All bytes are zero; no payload. */
  zero: 1,
  /** The payload is the page. */
  data: 2,
  /** The payload is an XBZRLE encoding against the previous content (`docs/formats/xbzrle.md`). */
  delta: 3,
  /**
   * The payload is a page that the source compressed by itself. A Flow that reads pages has already decompressed it.
   */
  compressed: 4,
} as const;
export type PageKind = (typeof PageKind)[keyof typeof PageKind];

/**
 * Where the records of a batch come from, and what their offsets count: the part that all their places have in common.
 */
export interface BatchOrigin {
  /** Name of the source. */
  readonly source: string;
  /** Number of the multifd channel that this source is. */
  readonly channel?: number;
  /** As in `Place` (`vm/migration-error.ts`). `decompressed`: bytes of a decompressor's output. */
  readonly coordinate: 'file' | 'decompressed' | 'vm-state';
}

/** Bytes of a kernel's arena that a batch needs. */
export const pageBatchArenaBytes = (capacity: number): number =>
  arenaBytes(...[1, 8, 8, 4, 4, 4].map((bytes) => capacity * bytes));

const memory: BatchOrigin = { source: 'memory', coordinate: 'file' };

/** Page records of one block, as tables. */
export class PageBatch implements RecordTables {
  readonly kernel: Kernel;
  /** The most records that the batch can hold. */
  readonly capacity: number;
  /** The number of records. Only the first `count` entries of the tables are valid. */
  count = 0;
  /** Where all records come from. Default: memory. */
  origin: BatchOrigin = memory;
  /**
   * Bytes in front of the payload of each data record that nobody needs, and that whoever gets the batch may overwrite,
   * for example with a header. Default 0.
   */
  room = 0;
  /** `PageKind` of each record. */
  readonly kind: Uint8Array<ArrayBuffer>;
  /** Index of the page within its RAM block. */
  readonly page: Float64Array<ArrayBuffer>;
  /** Where the record begins in its source, in bytes. */
  readonly offset: Float64Array<ArrayBuffer>;
  /** Bytes of the record in its source, including headers; 0 if it takes none. */
  readonly size: Uint32Array<ArrayBuffer>;
  /** Arena address of the payload; a view of the arena at `dataAddress`. */
  readonly data: Uint32Array<ArrayBuffer>;
  /** Bytes of payload; a view of the arena at `lengthAddress`. */
  readonly length: Uint32Array<ArrayBuffer>;
  readonly kindAddress: number;
  readonly pageAddress: number;
  readonly offsetAddress: number;
  readonly sizeAddress: number;
  readonly dataAddress: number;
  readonly lengthAddress: number;

  /**
   * Allocates the tables in the kernel's arena, permanently: 29 bytes per record.
   * @throws RangeError if the arena has no space left.
   */
  constructor(kernel: Kernel, capacity: number) {
    const { buffer } = kernel.bytes;
    this.kernel = kernel;
    this.capacity = capacity;
    this.kindAddress = kernel.allocate(capacity);
    this.pageAddress = kernel.allocate(capacity * 8);
    this.offsetAddress = kernel.allocate(capacity * 8);
    this.sizeAddress = kernel.allocate(capacity * 4);
    this.dataAddress = kernel.allocate(capacity * 4);
    this.lengthAddress = kernel.allocate(capacity * 4);
    this.kind = new Uint8Array(buffer, this.kindAddress, capacity);
    this.page = new Float64Array(buffer, this.pageAddress, capacity);
    this.offset = new Float64Array(buffer, this.offsetAddress, capacity);
    this.size = kernel.u32(this.sizeAddress, capacity);
    this.data = kernel.u32(this.dataAddress, capacity);
    this.length = kernel.u32(this.lengthAddress, capacity);
  }

  /**
   * Adds a record; the caller makes sure that there is space.
   * @param offset where the record begins in its source, in bytes
   * @param size bytes that it takes there
   * @param data arena address of the payload
   * @param length bytes of payload
   */
  push(kind: PageKind, page: number, offset: number, size: number, data: number, length: number): void {
    const i = this.count++;
    this.kind[i] = kind;
    this.page[i] = page;
    this.offset[i] = offset;
    this.size[i] = size;
    this.data[i] = data;
    this.length[i] = length;
  }

  /**
   * Adds uncompressed pages of a packet, whose data is contiguous; the caller makes sure that there is space.
   * @param offset where the data of the first page begins in its source, in bytes
   * @param data its arena address
   */
  pushPages(pages: Float64Array, offset: number, data: number, pageSize: number): void {
    const first = this.count;
    const end = first + pages.length;
    this.count = end;
    this.kind.fill(PageKind.data, first, end);
    this.page.set(pages, first);
    this.size.fill(8 + pageSize, first, end);
    this.length.fill(pageSize, first, end);
    for (let i = first, done = 0; i < end; i++, done += pageSize) {
      this.offset[i] = offset + done;
      this.data[i] = data + done;
    }
  }

  /** Removes all records except those from `first` to `end` - 1. */
  keep(first: number, end: number): void {
    for (const table of [this.kind, this.page, this.offset, this.size, this.data, this.length]) {
      if (first > 0) table.copyWithin(0, first, end);
    }
    this.count = end - first;
  }

  /** Removes all records. The tables keep their bytes, and the origin stays. */
  clear(): void {
    this.count = 0;
  }

  /** Removes all records. The next ones come from `origin`. */
  begin(origin: BatchOrigin): void {
    this.count = 0;
    this.origin = origin;
  }
}
