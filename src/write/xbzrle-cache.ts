/**
 * The page cache of a source with XBZRLE (docs/formats/xbzrle.md, "The page cache"): the pages that it sent and
 * remembers, and can therefore send as deltas. The cache is direct-mapped, with one page per slot. A page that was used
 * less than two bitmap syncs ago keeps its slot. Policy and counters equal QEMU's, so the records do too.
 *
 * Pages come and go in batches, and one kernel call makes all deltas of a batch. The cache is in the arena, whose
 * untouched pages take no host memory.
 */
import { arenaBytes, encodeSlackBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { isPageSize } from '../vm/page-size.ts';

/** QEMU's default of `xbzrle-cache-size`. */
export const defaultXbzrleCacheSize = 64 << 20;

/** Bytes of deltas made at a time. */
const deltaBytes = 1 << 20;
/** Records in a batch. */
const batchCapacity = 4096;
/** The most pages of the smallest size whose deltas fit. */
const maxCandidates = deltaBytes / 1024;
/** Bytes of a delta record between its first word and its payload: the header byte and the length. */
const deltaHead = 3;

/** Bytes of a kernel's arena that a cache of this size needs. */
export function xbzrleArenaBytes(cacheSize = defaultXbzrleCacheSize): number {
  const tables = Array(3).fill(maxCandidates * 4);
  return arenaBytes(cacheSize, deltaBytes + encodeSlackBytes, ...tables) + pageBatchArenaBytes(batchCapacity);
}

/** What caches count. In QEMU all caches of a process count together. */
export class XbzrleCounters {
  bytes = 0;
  pages = 0;
  cacheMiss = 0;
  overflow = 0;
  cacheMissRate = 0;
  encodingRate = 0;
}

/** The size of the cache, and of its pages. */
export interface XbzrleCacheOptions {
  /** Where it counts. Default: counters of its own, from 0 on. */
  counters?: XbzrleCounters | undefined;
  /** Bytes of the cache. The number of pages in it must be a power of two. Default 64 MiB. */
  cacheSize?: number;
  /** Target page size in bytes: a power of two from 1 KiB to 16 KiB. Default 4096. */
  pageSize?: number;
}

/** The statistics of `query-migrate`, member `xbzrle-cache`. Counters grow as long as whatever counts exists. */
export interface XbzrleStatistics {
  /** Bytes. */
  readonly cacheSize: number;
  /** Bytes of records without their first words. A page that overflowed counts with the page size. */
  readonly bytes: number;
  /**
   * Pages found in the cache. They were sent as deltas, sent whole because the delta was too long, or not sent at all.
   */
  readonly pages: number;
  readonly cacheMiss: number;
  /** Pages whose delta would have been too long. */
  readonly overflow: number;
  /** Misses per page sent, in the latest period. */
  readonly cacheMissRate: number;
  /** Bytes of pages found in the cache per byte of `bytes`, in the latest period. */
  readonly encodingRate: number;
}

/** The stage of the migration in which pages are sent. */
export interface PassContext {
  /** Bitmap syncs so far (dirty-sync-count). */
  generation: number;
  /** The guest is stopped, and these pages are its last. They are looked up, but not added to the cache. */
  isLastStage?: boolean;
  /** Whether the next record names its block, like the first record of a new block. `bytes` includes the name. */
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
  /** The turn in which a slot was last hit. Its old content is needed until that turn ends. */
  readonly #hitIn: Uint32Array;
  #turn = 1;
  readonly #counters: XbzrleCounters;
  /** The counters at the end of the latest period. */
  #before: { bytes: number; pages: number; cacheMiss: number };

  readonly #batch: PageBatch;
  readonly #deltas: number;
  /** For the pages hit in this turn: old content, new content, result, slot. */
  readonly #olds: Uint32Array;
  readonly #news: Uint32Array;
  readonly #results: Int32Array;
  readonly #hitSlots: Uint32Array;
  #hits = 0;

  /**
   * Allocates {@link xbzrleArenaBytes} bytes in the kernel's arena, which must also contain the pages to encode.
   * @throws RangeError for a size that is not a power of two of pages, or an impossible page size.
   */
  constructor(kernel: Kernel, options: XbzrleCacheOptions = {}) {
    const { cacheSize = defaultXbzrleCacheSize, pageSize = 4096, counters = new XbzrleCounters() } = options;
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
    this.#counters = counters;
    this.#before = { ...counters };
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

  /** The present statistics. */
  get statistics(): XbzrleStatistics {
    return { cacheSize: this.#pages.length * this.#pageSize, ...this.#counters };
  }

  /**
   * Yields the records for pages, in order. Each page must be whole (`PageKind.data`) or zero. Each batch is valid
   * until the next is requested. Unchanged pages have no record. Do not call this for the first round, which QEMU
   * neither looks up nor remembers.
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

  /** Ends a period in which `pagesSent` pages were sent in any form. The rates are then those of this period. */
  endPeriod(pagesSent: number): void {
    if (pagesSent === 0) return;
    const now = this.#counters;
    const before = this.#before;
    const [pages, bytes] = [now.pages - before.pages, now.bytes - before.bytes];
    now.cacheMissRate = (now.cacheMiss - before.cacheMiss) / pagesSent;
    now.encodingRate = pages === 0 || bytes === 0 ? 0 : (pages * this.#pageSize) / bytes;
    this.#before = { ...now };
  }

  /** Looks up pages from `first` on, until the turn must end. Returns the first page that was not looked up. */
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
      // Its old content is still needed.
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

  /** Claims a slot for a page. Fails if the slot has another page that was used recently. */
  #claim(slot: number, number: number, generation: number): boolean {
    const holder = this.#pages[slot] as number;
    if (holder !== number && holder !== -1 && (this.#ages[slot] as number) + 2 > generation) return false;
    this.#pages[slot] = number;
    this.#ages[slot] = generation;
    return true;
  }

  /** Encodes all pages that were hit at once, and decides what each record becomes. */
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
    // Records move up to replace those that are left out.
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
