/**
 * Two contents of RAM side by side: the pages of a block in both, in address order, window by window. One kernel call
 * finds the pages that differ, and one the pages that are zero. While one window is being examined, the next is being
 * read. Where neither content has data, nothing is read.
 *
 *     old  |ddddddd.......................ddd|      d data, . zero or never sent
 *     new  |ddd.................ddddddddddddd|
 *           window| gap         |window |wind|
 */
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import { NextData } from './next-data.ts';

/** Bytes of pages read at a time, for each content. */
export const pairWindowBytes = 1 << 20;
/** The most pages in a window, which are those of the smallest size. */
export const pairWindowPages = 1024;
/** Bytes of a kernel's arena that it needs. */
export const pagePairsArenaBytes = 4 * arenaBytes(pairWindowBytes) + 3 * arenaBytes(pairWindowPages / 8);

/** A block that two contents have under one name. Its index and its length may differ. */
export interface BlockPair {
  oldBlock: RamBlock;
  newBlock: RamBlock;
}

/** The blocks of two contents by their names. */
export interface MatchedBlocks {
  /** In the order of the new content. */
  pairs: BlockPair[];
  onlyOld: RamBlock[];
  onlyNew: RamBlock[];
}

/** Matches the blocks of two contents by name. */
export function matchBlocks(olds: readonly RamBlock[], news: readonly RamBlock[]): MatchedBlocks {
  const left = new Map(olds.map((block) => [block.idstr, block]));
  const matched: MatchedBlocks = { pairs: [], onlyOld: [], onlyNew: [] };
  for (const newBlock of news) {
    const oldBlock = left.get(newBlock.idstr);
    if (oldBlock === undefined) matched.onlyNew.push(newBlock);
    else matched.pairs.push({ oldBlock, newBlock });
    left.delete(newBlock.idstr);
  }
  matched.onlyOld.push(...left.values());
  return matched;
}

/** Pages `[first, first + count)`. Neither content has data there: each page is zero, or was never sent. */
export interface PairGap {
  readonly isGap: true;
  readonly first: number;
  readonly count: number;
}

/** Pages `[first, first + count)` in the arena. Bit i % 8 of byte i / 8 of a bitmap stands for page `first + i`. */
export interface PairWindow {
  readonly isGap: false;
  readonly first: number;
  readonly count: number;
  /** Arena addresses of the pages. */
  readonly old: number;
  readonly new: number;
  /** The pages that differ, and the pages that are zero or were never sent. */
  readonly changed: Uint8Array;
  readonly oldZero: Uint8Array;
  readonly newZero: Uint8Array;
  /** How many bits are set in `changed`. */
  readonly changedCount: number;
}

/** The next part of two contents: a window of data, or a gap in both. */
export type PairSpan = PairGap | PairWindow;

/** Goes through two contents side by side, window by window, and reports which pages differ. */
export class PagePairs {
  readonly #kernel: Kernel;
  /** Arena addresses of the windows. While one pair is being examined, the other is being read. */
  readonly #olds: readonly [number, number];
  readonly #news: readonly [number, number];
  readonly #changed: Uint8Array;
  readonly #oldZero: Uint8Array;
  readonly #newZero: Uint8Array;

  /** Allocates its buffers in the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    const window = () => kernel.allocate(pairWindowBytes);
    this.#olds = [window(), window()];
    this.#news = [window(), window()];
    const bitmap = () => {
      const address = kernel.allocate(pairWindowPages / 8);
      return kernel.bytes.subarray(address, address + pairWindowPages / 8);
    };
    this.#changed = bitmap();
    this.#oldZero = bitmap();
    this.#newZero = bitmap();
  }

  /**
   * Yields the pages that both blocks have, from first to last, as spans. Each span is valid until the next is
   * requested.
   * @throws RangeError for blocks of different page sizes
   */
  async *spans(olds: RamReader, news: RamReader, pair: BlockPair): AsyncGenerator<PairSpan, void> {
    const { oldBlock, newBlock } = pair;
    if (oldBlock.pageSize !== newBlock.pageSize) {
      const [expected, got] = [oldBlock, newBlock].map(({ pageSize }) => `pages of ${pageSize} bytes`);
      throw new RangeError(`${newBlock.idstr}: expected ${expected} in both contents, got ${got}`);
    }
    const plan = this.#plan(olds, news, pair);
    const pages = Math.min(pageCount(oldBlock), pageCount(newBlock));
    olds.willRead?.(oldBlock, 0, pages);
    news.willRead?.(newBlock, 0, pages);
    let current = 0;
    let pending = this.#start(olds, news, pair, plan, current);
    try {
      for (;;) {
        const span = await pending;
        if (span === undefined) return;
        const read = current;
        // A gap uses no buffer.
        if (!span.isGap) current = 1 - current;
        pending = this.#start(olds, news, pair, plan, current);
        yield span.isGap ? span : this.#look(span, oldBlock.pageSize, read);
      }
    } finally {
      // The sources may be closed afterwards.
      await pending.catch(() => {});
    }
  }

  /** Starts reading the next window. */
  #start(
    olds: RamReader,
    news: RamReader,
    { oldBlock, newBlock }: BlockPair,
    plan: AsyncGenerator<Planned, void>,
    at: number,
  ): Promise<Planned | undefined> {
    const { bytes } = this.#kernel;
    const read = async () => {
      const { value: span } = await plan.next();
      if (!span) return undefined;
      const length = span.count * newBlock.pageSize;
      const [old, now] = [this.#olds[at] as number, this.#news[at] as number];
      if (!span.isGap) {
        // A content without data there is not read: it might search far for its next data.
        await Promise.all([
          span.hasOld
            ? olds.read(oldBlock, span.first, bytes.subarray(old, old + length))
            : bytes.fill(0, old, old + length),
          span.hasNew
            ? news.read(newBlock, span.first, bytes.subarray(now, now + length))
            : bytes.fill(0, now, now + length),
        ]);
      }
      return span;
    };
    const pending = read();
    // The failure is reported when the pages are used, not as an unhandled rejection.
    pending.catch(() => {});
    return pending;
  }

  /** Plans the reads: from the next page with data in either content, as many pages as a window holds. */
  async *#plan(olds: RamReader, news: RamReader, { oldBlock, newBlock }: BlockPair): AsyncGenerator<Planned, void> {
    const pages = Math.min(pageCount(oldBlock), pageCount(newBlock));
    const most = pairWindowBytes / newBlock.pageSize;
    const [oldData, newData] = [new NextData(olds), new NextData(news)];
    for (let page = 0; page < pages; ) {
      const nextOld = (await oldData.find(oldBlock, page, 1)).first;
      const nextNew = (await newData.find(newBlock, page, 1)).first;
      const data = Math.min(nextOld, nextNew, pages);
      if (data > page) yield { isGap: true, first: page, count: data - page };
      if (data === pages) return;
      const count = Math.min(most, pages - data);
      yield { isGap: false, first: data, count, hasOld: nextOld < data + count, hasNew: nextNew < data + count };
      page = data + count;
    }
  }

  #look({ first, count }: Pick<PairWindow, 'first' | 'count'>, pageSize: number, at: number): PairWindow {
    const kernel = this.#kernel;
    const [old, now] = [this.#olds[at] as number, this.#news[at] as number];
    const [changed, oldZero, newZero] = [this.#changed, this.#oldZero, this.#newZero];
    const changedCount = kernel.comparePages(old, now, pageSize, count, changed.byteOffset);
    kernel.zeroScan(old, pageSize, count, oldZero.byteOffset);
    kernel.zeroScan(now, pageSize, count, newZero.byteOffset);
    return { isGap: false, first, count, old, new: now, changed, oldZero, newZero, changedCount };
  }
}

/** The next span, before it is read. */
type Planned = PairGap | PlannedWindow;

interface PlannedWindow extends Pick<PairWindow, 'isGap' | 'first' | 'count'> {
  /** Whether it has data in the old content, and in the new one. */
  hasOld: boolean;
  hasNew: boolean;
}
