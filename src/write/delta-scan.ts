/**
 * Sends the changes of a VM's RAM since an earlier content was sent: the second pass of a migration. Pages go as XBZRLE
 * deltas (docs/formats/xbzrle.md) if these are shorter than the page. QEMU works differently: it has a cache of limited
 * size, and knows only which pages are dirty. Here both contents are available, so exactly the changed pages are found.
 */
import { arenaBytes, encodeSlackBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import {
  PagePairs,
  type PairWindow,
  pagePairsArenaBytes,
  pairWindowBytes,
  pairWindowPages,
} from '../store/page-pairs.ts';
import { isBitSet } from '../vm/bits.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { ScannedBlock } from './ram-scan.ts';

/** Records in a batch: the pages of a window. */
const batchCapacity = pairWindowPages;
/** The header of a delta record is 3 bytes longer than that of a page. */
const deltaHead = 3;
/** Bytes of a kernel's arena that it needs. */
export const deltaScanArenaBytes =
  pagePairsArenaBytes +
  arenaBytes(pairWindowBytes + encodeSlackBytes, ...Array(3).fill(batchCapacity * 4)) +
  pageBatchArenaBytes(batchCapacity);

/** How a block differs from its base. */
export interface BlockChanges {
  /** Records of each kind, and bytes of the deltas. */
  deltaPages: number;
  deltaBytes: number;
  dataPages: number;
  zeroPages: number;
}

/** What to do with a page. */
const PageAction = { same: 0, zero: 1, data: 2, delta: 3 } as const;

/** The content to send, and the content that was sent before. */
interface Contents {
  base: RamReader;
  ram: RamReader;
  baseBlock: RamBlock;
}

export class DeltaScan {
  readonly #kernel: Kernel;
  readonly #pairs: PagePairs;
  readonly #deltas: number;
  readonly #olds: Uint32Array;
  readonly #news: Uint32Array;
  readonly #results: Int32Array;
  readonly #batch: PageBatch;
  readonly #actions = new Uint8Array(batchCapacity);

  /** Allocates its buffers in the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#pairs = new PagePairs(kernel);
    this.#deltas = kernel.allocate(pairWindowBytes + kernel.xbzrleEncodeSlack);
    this.#olds = kernel.u32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#news = kernel.u32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#results = kernel.i32(kernel.allocate(batchCapacity * 4), batchCapacity);
    this.#batch = new PageBatch(kernel, batchCapacity);
  }

  /**
   * Yields the pages of a block of `ram` that differ from the same block of `base`, or were never sent there. Each
   * batch is valid until the next is requested. A page that was never sent in `ram` counts as zero.
   */
  async *pages(
    base: RamReader,
    ram: RamReader,
    counts: ScannedBlock,
    changes: BlockChanges,
  ): AsyncGenerator<PageBatch, void> {
    const { block } = counts;
    // The same block may have another index in the base.
    const baseBlock = base.blocks[block.index] as RamBlock;
    const of = { base, ram, baseBlock };
    for await (const span of this.#pairs.spans(base, ram, { oldBlock: baseBlock, newBlock: block })) {
      if (span.isGap) {
        const end = span.first + span.count;
        for (let page = span.first; page < end; page += batchCapacity) {
          this.#gather(of, counts, changes, page, Math.min(batchCapacity, end - page), undefined);
          if (this.#batch.count > 0) yield this.#batch;
        }
      } else {
        this.#judge(of, block, span);
        this.#gather(of, counts, changes, span.first, span.count, span);
        if (this.#batch.count > 0) yield this.#batch;
      }
    }
  }

  /** Decides what to do with each page of a window. */
  #judge({ base, baseBlock }: Contents, { pageSize }: RamBlock, window: PairWindow): void {
    const kernel = this.#kernel;
    const { first, count, changed, newZero } = window;
    const canEncode = pageSize <= kernel.xbzrleMaxPage;
    let candidates = 0;
    for (let i = 0; i < count; i++) {
      const isBased = base.isAbsent?.(baseBlock, first + i) !== true;
      let action: number = PageAction.same;
      if (isBitSet(changed, i))
        action = isBitSet(newZero, i) ? PageAction.zero : isBased && canEncode ? PageAction.delta : PageAction.data;
      this.#actions[i] = action;
      if (action !== PageAction.delta) continue;
      this.#olds[candidates] = window.old + i * pageSize;
      this.#news[candidates++] = window.new + i * pageSize;
    }
    if (candidates === 0) return;
    const [olds, news, results] = [this.#olds.byteOffset, this.#news.byteOffset, this.#results.byteOffset];
    const limit = pageSize - deltaHead - 1;
    kernel.xbzrleEncodeBatch(olds, news, candidates, pageSize, limit, this.#deltas, results);
  }

  /** Makes the records of some pages. Pages of a gap have no window. */
  #gather(
    { base, ram, baseBlock }: Contents,
    counts: ScannedBlock,
    changes: BlockChanges,
    first: number,
    count: number,
    window: PairWindow | undefined,
  ): void {
    const { block } = counts;
    const batch = this.#batch;
    batch.clear();
    let candidate = 0;
    let delta = this.#deltas;
    for (let i = 0; i < count; i++) {
      const page = first + i;
      const isZero = window === undefined || isBitSet(window.newZero, i);
      const isAbsent = isZero && ram.isAbsent?.(block, page) === true;
      if (isAbsent) counts.absentPages++;
      else if (isZero) counts.zeroPages++;
      else counts.dataPages++;
      let action = window === undefined ? PageAction.same : (this.#actions[i] as number);
      // A page that was not sent before is sent now, even if it is zero.
      if (action === PageAction.same && isZero && !isAbsent && base.isAbsent?.(baseBlock, page) === true)
        action = PageAction.zero;
      if (action === PageAction.same) continue;
      const length = action === PageAction.delta ? (this.#results[candidate++] as number) : -1;
      if (action === PageAction.zero) {
        batch.push(PageKind.zero, page, 0, 0, 0, 0);
        changes.zeroPages++;
      } else if (length >= 0) {
        batch.push(PageKind.delta, page, 0, 0, delta, length);
        delta += length;
        changes.deltaPages++;
        changes.deltaBytes += length;
      } else {
        const data = (window as PairWindow).new + i * block.pageSize;
        batch.push(PageKind.data, page, 0, 0, data, block.pageSize);
        changes.dataPages++;
      }
    }
    counts.records += batch.count;
  }
}
