/**
 * The page cache of a source with XBZRLE (docs/formats/xbzrle.md, "The page cache"): what it remembers of the pages it
 * sent, and so what it can send as a delta. Direct-mapped, one page a slot; a page that was used less than two bitmap
 * syncs ago keeps its slot. The policy and the counters are QEMU's, so that the records are, too.
 *
 * Pages come and go in batches, with one kernel call for all the deltas of one. The cache lies in the arena, where a page
 * that is never used takes no memory of the host.
 */
import { arenaBytes, encodeSlackBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { isPageSize } from '../vm/page-size.ts';

/** QEMU's default of `xbzrle-cache-size`. */
export const defaultXbzrleCacheSize = 64 << 20;

/** Bytes of deltas that are made at once. */
const deltaBytes = 1 << 20;
/** Records in a batch. */
const batchCapacity = 4096;
/** Pages of the smallest size whose deltas fit. */
const maxCandidates = deltaBytes / 1024;
/** What a delta record has before its payload, beside the word: the header byte and the length. */
const deltaHead = 3;

/** What a cache of so many bytes takes of a kernel's arena. */
export function xbzrleArenaBytes(cacheSize = defaultXbzrleCacheSize): number {
  const tables = Array(3).fill(maxCandidates * 4);
  return arenaBytes(cacheSize, deltaBytes + encodeSlackBytes, ...tables) + pageBatchArenaBytes(batchCapacity);
}

/** The size of the cache, and of its pages. */
export interface XbzrleCacheOptions {
  /** Bytes; a number of pages that is a power of two. Default 64 MiB. */
  cacheSize?: number;
  /** Target page size in bytes: a power of two from 1 KiB to 16 KiB. Default 4096. */
  pageSize?: number;
}

/** As `query-migrate` says it under `xbzrle-cache`; counters grow for the life of the cache. */
export interface XbzrleStatistics {
  /** Bytes. */
  readonly cacheSize: number;
  /** Bytes of records without their first words; of a page that overflowed, the page size. */
  readonly bytes: number;
  /** Pages that were in the cache; sent as deltas, whole since the delta was too long, or not at all. */
  readonly pages: number;
  readonly cacheMiss: number;
  /** Pages whose delta would have been too long. */
  readonly overflow: number;
  /** Of the latest period: misses for each page sent. */
  readonly cacheMissRate: number;
  /** Of the latest period: bytes of pages that were in the cache for each of `bytes`. */
  readonly encodingRate: number;
}

/** When pages are sent. */
export interface PassContext {
  /** Bitmap syncs so far (dirty-sync-count). */
  generation: number;
  /** The guest is stopped, and these pages are its last: they are looked up, but not remembered. */
  isLastStage?: boolean;
  /** Whether the next record names its block, as the first of another block does; `bytes` counts the name. */
  isNamed: boolean;
}

/** QEMU's XBZRLE page cache: decides for each page whether it goes as a delta. */
export class XbzrleCache {
  readonly #kernel: Kernel;
  readonly #pageSize: number;
  /** Address of slot 0. */
  readonly #slots: number;
  /** Page number in RAM address space of each slot; -1: empty. */
  readonly #pages: Float64Array;
  /** Generation of each slot's latest use. */
  readonly #ages: Uint32Array;
  /** The turn in which a slot was last hit: its old content is wanted until that turn is over. */
  readonly #hitIn: Uint32Array;
  #turn = 1;
  readonly #counters = { bytes: 0, pages: 0, cacheMiss: 0, overflow: 0, cacheMissRate: 0, encodingRate: 0 };
  /** The counters at the end of the latest period. */
  #before = { bytes: 0, pages: 0, cacheMiss: 0 };

  readonly #batch: PageBatch;
  readonly #deltas: number;
  /** Of the pages that were hit in this turn: old content, new content, result, slot. */
  readonly #olds: Uint32Array;
  readonly #news: Uint32Array;
  readonly #results: Int32Array;
  readonly #hitSlots: Uint32Array;
  #hits = 0;

  /**
   * Allocates {@link xbzrleArenaBytes} bytes in the arena of the kernel, which must also hold the pages to encode.
   * @throws RangeError for a size that is not a power of two of pages, or an impossible page size.
   */
  constructor(kernel: Kernel, { cacheSize = defaultXbzrleCacheSize, pageSize = 4096 }: XbzrleCacheOptions = {}) {
    if (!isPageSize(pageSize) || pageSize > kernel.xbzrleMaxPage) {
      throw new RangeError(
        `expected a page size that is a power of two from 1024 to ${kernel.xbzrleMaxPage}, got ${pageSize}`,
      );
    }
    const slots = cacheSize / pageSize;
    if (!(slots >= 1) || !Number.isInteger(Math.log2(slots))) {
      throw new RangeError(`expected a cache size that is a power of two, and at least a page, got ${cacheSize}`);
    }
    this.#kernel = kernel;
    this.#pageSize = pageSize;
    this.#slots = kernel.allocate(cacheSize);
    this.#pages = new Float64Array(slots).fill(-1);
    this.#ages = new Uint32Array(slots);
    this.#hitIn = new Uint32Array(slots);
    this.#batch = new PageBatch(kernel, batchCapacity);
    this.#deltas = kernel.allocate(deltaBytes + kernel.xbzrleEncodeSlack);
    this.#olds = kernel.u32(kernel.allocate(maxCandidates * 4), maxCandidates);
    this.#news = kernel.u32(kernel.allocate(maxCandidates * 4), maxCandidates);
    this.#results = kernel.i32(kernel.allocate(maxCandidates * 4), maxCandidates);
    this.#hitSlots = new Uint32Array(maxCandidates);
  }

  /** As they are now. */
  get statistics(): XbzrleStatistics {
    return { cacheSize: this.#pages.length * this.#pageSize, ...this.#counters };
  }

  /**
   * What is sent for pages, each whole (`PageKind.data`) or zero, in their order, in batches that are valid until the next
   * is asked for. Pages that are as they were do not come. Not for the first round, which QEMU neither looks up nor
   * remembers.
   */
  *encode(
    block: GuestBlock,
    pages: PageBatch,
    { generation, isLastStage = false, isNamed }: PassContext,
  ): Generator<PageBatch, void> {
    if (block.pageSize !== this.#pageSize) {
      throw new RangeError(`expected pages of ${this.#pageSize} bytes, got those of ${block.pageSize} bytes`);
    }
    const nameBytes = 1 + block.idstr.length;
    for (let at = 0, name = isNamed ? nameBytes : 0; at < pages.count; ) {
      at = this.#gather(block, pages, at, generation, isLastStage);
      this.#settle(isLastStage, name);
      if (this.#batch.count === 0) continue;
      name = 0;
      yield this.#batch;
    }
  }

  /** Ends a period, in which so many pages were sent, in whatever way: the rates are those of this period then. */
  endPeriod(pagesSent: number): void {
    if (pagesSent === 0) return;
    const now = this.#counters;
    const before = this.#before;
    const [pages, bytes] = [now.pages - before.pages, now.bytes - before.bytes];
    now.cacheMissRate = (now.cacheMiss - before.cacheMiss) / pagesSent;
    now.encodingRate = pages === 0 || bytes === 0 ? 0 : (pages * this.#pageSize) / bytes;
    this.#before = { ...now };
  }

  /** Looks pages up from `first` on, until the turn must end. Returns the first that it did not. */
  #gather(block: GuestBlock, pages: PageBatch, first: number, generation: number, isLastStage: boolean): number {
    const batch = this.#batch;
    const { bytes } = this.#kernel;
    const pageSize = this.#pageSize;
    const base = block.ramAddress / pageSize;
    const most = Math.min(maxCandidates, deltaBytes / pageSize);
    batch.clear();
    this.#hits = 0;
    this.#turn++;
    let i = first;
    for (; i < pages.count && batch.count < batchCapacity && this.#hits < most; i++) {
      const number = base + (pages.page[i] as number);
      const slot = number % this.#pages.length;
      // Its old content is still to be looked at.
      if (this.#hitIn[slot] === this.#turn) break;
      const kind = pages.kind[i] as PageKind;
      const data = pages.data[i] as number;
      const isHit = this.#pages[slot] === number;
      let length = kind === PageKind.zero ? 0 : pageSize;
      if (kind === PageKind.zero) {
        if (this.#claim(slot, number, generation)) {
          const address = this.#slots + slot * pageSize;
          bytes.fill(0, address, address + pageSize);
        }
      } else if (kind !== PageKind.data) {
        throw new RangeError(`expected whole pages, got kind ${kind} for page ${pages.page[i]} of "${block.idstr}"`);
      } else if (isHit) {
        this.#ages[slot] = generation;
        this.#hitIn[slot] = this.#turn;
        this.#olds[this.#hits] = this.#slots + slot * pageSize;
        this.#news[this.#hits] = data;
        this.#hitSlots[this.#hits++] = slot;
        length = 0;
      } else {
        this.#counters.cacheMiss++;
        if (!isLastStage && this.#claim(slot, number, generation)) {
          bytes.copyWithin(this.#slots + slot * pageSize, data, data + pageSize);
        }
      }
      // A hit counts as a delta until it is encoded.
      batch.push(isHit && kind === PageKind.data ? PageKind.delta : kind, pages.page[i] as number, 0, 0, data, length);
    }
    return i;
  }

  /** Takes a slot for a page, unless another holds it that was used lately. */
  #claim(slot: number, number: number, generation: number): boolean {
    const holder = this.#pages[slot] as number;
    if (holder !== number && holder !== -1 && (this.#ages[slot] as number) + 2 > generation) return false;
    this.#pages[slot] = number;
    this.#ages[slot] = generation;
    return true;
  }

  /** Encodes the pages that were hit, all at once, and makes of each what it is to be. */
  #settle(isLastStage: boolean, nameBytes: number): void {
    const kernel = this.#kernel;
    const batch = this.#batch;
    const pageSize = this.#pageSize;
    if (this.#hits === 0) return;
    const [olds, news, results] = [this.#olds.byteOffset, this.#news.byteOffset, this.#results.byteOffset];
    kernel.xbzrleEncodeBatch(olds, news, this.#hits, pageSize, pageSize, this.#deltas, results);
    let hit = 0;
    let delta = this.#deltas;
    const { count } = batch;
    // Records move up to the places of those that are left out.
    batch.clear();
    for (let i = 0; i < count; i++) {
      let kind = batch.kind[i] as PageKind;
      let data = batch.data[i] as number;
      let length = batch.length[i] as number;
      if (kind === PageKind.delta) {
        const slot = this.#hitSlots[hit] as number;
        const result = this.#results[hit++] as number;
        this.#counters.pages++;
        if (result === 0) continue;
        if (!isLastStage) kernel.bytes.copyWithin(this.#slots + slot * pageSize, data, data + pageSize);
        if (result > 0) {
          [data, length] = [delta, result];
          delta += result;
          this.#counters.bytes += result + deltaHead + (batch.count === 0 ? nameBytes : 0);
        } else {
          [kind, length] = [PageKind.data, pageSize];
          this.#counters.overflow++;
          this.#counters.bytes += pageSize;
        }
      }
      batch.push(kind, batch.page[i] as number, 0, 0, data, length);
    }
  }
}
