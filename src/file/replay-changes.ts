/**
 * Sends what changed in a VM's RAM since another was sent: the second pass of a migration, as XBZRLE deltas
 * (docs/formats/xbzrle.md) where they are shorter than the page. It is not QEMU's policy, which has a cache of limited size
 * and knows only which pages are dirty: here both contents are at hand, so every changed page is found, and no other.
 */
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind } from '../kernel/page-batch.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { ReplayedBlock } from './replay.ts';

/** Bytes of pages that are read at once, of each content. */
const windowBytes = 1 << 20;
/** Pages of the least size in a window. */
const batchCapacity = 1024;
/** A delta has a header of 3 bytes more than a page. */
const deltaHead = 3;
/** What it takes of a kernel's arena. */
export const changesArenaBytes = 3 * windowBytes + batchCapacity * 20 + batchCapacity / 4 + 4096 + 16 * 64;

export interface BlockChanges {
  /** Records of each kind; bytes of the deltas. */
  deltaPages: number;
  deltaBytes: number;
  dataPages: number;
  zeroPages: number;
}

/** What a page is to become. */
const Fate = { same: 0, zero: 1, data: 2, delta: 3 } as const;

/** A block in both contents. */
interface Contents {
  base: RamReader;
  ram: RamReader;
  block: RamBlock;
  baseBlock: RamBlock;
}

export class ReplayChanges {
  readonly #kernel: Kernel;
  readonly #old: number;
  readonly #new: number;
  readonly #deltas: number;
  readonly #olds: Uint32Array;
  readonly #news: Uint32Array;
  readonly #results: Int32Array;
  readonly #changed: number;
  readonly #zero: number;
  readonly #batch: PageBatch;
  readonly #fates = new Uint8Array(batchCapacity);

  /** Takes its room from the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#old = kernel.allocate(windowBytes);
    this.#new = kernel.allocate(windowBytes);
    this.#deltas = kernel.allocate(windowBytes + kernel.xbzrleEncodeSlack);
    this.#olds = kernel.u32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#news = kernel.u32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#results = kernel.i32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#changed = kernel.allocate(batchCapacity / 8);
    this.#zero = kernel.allocate(batchCapacity / 8);
    this.#batch = new PageBatch(kernel, batchCapacity);
  }

  /**
   * The pages of a block of `ram` that differ from those of the same block of `base`, or were never sent there, in
   * batches that are valid until the next is asked for. A page that was never sent in `ram` counts as zero.
   */
  async *pages(
    base: RamReader,
    ram: RamReader,
    counts: ReplayedBlock,
    changes: BlockChanges,
  ): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    // The same block may be at another place there.
    const of = { base, ram, block, baseBlock: base.blocks[block.index] as RamBlock };
    const pages = pageCount(block);
    const most = windowBytes / block.pageSize;
    for (let page = 0; page < pages; ) {
      const next = await Promise.all([ram.nextData(block, page, 1), base.nextData(of.baseBlock, page, 1)]);
      const data = Math.min(...next.map(({ first }) => first));
      const isGap = data > page;
      const count = isGap ? Math.min(batchCapacity, data - page) : Math.min(most, pages - page);
      if (isGap) this.#fates.fill(Fate.same, 0, count);
      else await this.#judge(of, page, count);
      this.#gather(of, counts, changes, page, count, isGap);
      if (this.#batch.count > 0) yield this.#batch;
      page += count;
    }
  }

  /** Reads both windows, and finds out what is to become of each page. */
  async #judge({ base, ram, block, baseBlock }: Contents, first: number, count: number): Promise<void> {
    const kernel = this.#kernel;
    const { bytes } = kernel;
    const { pageSize } = block;
    const length = count * pageSize;
    await base.read(baseBlock, first, bytes.subarray(this.#old, this.#old + length));
    await ram.read(block, first, bytes.subarray(this.#new, this.#new + length));
    kernel.zeroScan(this.#new, pageSize, count, this.#zero);
    kernel.comparePages(this.#old, this.#new, pageSize, count, this.#changed);
    const isSet = (bitmap: number, i: number) => (((bytes[bitmap + (i >> 3)] as number) >> (i & 7)) & 1) === 1;
    const canEncode = pageSize <= kernel.xbzrleMaxPage;
    let candidates = 0;
    for (let i = 0; i < count; i++) {
      const isBased = base.isAbsent?.(baseBlock, first + i) !== true;
      let fate: number = Fate.same;
      if (isSet(this.#changed, i)) {
        fate = isSet(this.#zero, i) ? Fate.zero : isBased && canEncode ? Fate.delta : Fate.data;
      }
      this.#fates[i] = fate;
      if (fate !== Fate.delta) continue;
      this.#olds[candidates] = this.#old + i * pageSize;
      this.#news[candidates++] = this.#new + i * pageSize;
    }
    if (candidates === 0) return;
    const [olds, news, results] = [this.#olds.byteOffset, this.#news.byteOffset, this.#results.byteOffset];
    const limit = pageSize - deltaHead - 1;
    kernel.xbzrleEncodeBatch(olds, news, candidates, pageSize, limit, this.#deltas, results);
  }

  #gather(
    { base, ram, block, baseBlock }: Contents,
    counts: ReplayedBlock,
    changes: BlockChanges,
    first: number,
    count: number,
    isGap: boolean,
  ): void {
    const { bytes } = this.#kernel;
    const batch = this.#batch;
    batch.clear();
    let candidate = 0;
    let delta = this.#deltas;
    for (let i = 0; i < count; i++) {
      const page = first + i;
      const isZero = isGap || (((bytes[this.#zero + (i >> 3)] as number) >> (i & 7)) & 1) === 1;
      const isAbsent = isZero && ram.isAbsent?.(block, page) === true;
      if (isAbsent) counts.absentPages++;
      else if (isZero) counts.zeroPages++;
      else counts.dataPages++;
      let fate = this.#fates[i] as number;
      // A page that was not sent before is sent now, zero as it is.
      if (fate === Fate.same && isZero && !isAbsent && base.isAbsent?.(baseBlock, page) === true) fate = Fate.zero;
      if (fate === Fate.same) continue;
      const length = fate === Fate.delta ? (this.#results[candidate++] as number) : -1;
      const record = batch.count++;
      batch.page[record] = page;
      if (fate === Fate.zero) {
        batch.kind[record] = PageKind.zero;
        batch.length[record] = 0;
        changes.zeroPages++;
      } else if (length >= 0) {
        batch.kind[record] = PageKind.delta;
        batch.data[record] = delta;
        batch.length[record] = length;
        delta += length;
        changes.deltaPages++;
        changes.deltaBytes += length;
      } else {
        batch.kind[record] = PageKind.data;
        batch.data[record] = this.#new + i * block.pageSize;
        batch.length[record] = block.pageSize;
        changes.dataPages++;
      }
    }
    counts.records += batch.count;
  }
}
