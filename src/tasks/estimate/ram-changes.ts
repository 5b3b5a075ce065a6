/**
 * The changes of a VM's RAM between two saves: exactly, as QEMU's page sampling would see them, and as XBZRLE would
 * send them. None of these sees pages that were written and have their old content again.
 */

import type { Abortable } from '../../io/abort.ts';
import { arenaBytes, encodeSlackBytes } from '../../kernel/arena-budget.ts';
import type { Kernel, KernelVariant } from '../../kernel/kernel.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { abortableRam } from '../../store/abortable-ram.ts';
import {
  type BlockPair,
  matchBlocks,
  PagePairs,
  type PairWindow,
  pagePairsArenaBytes,
  pairWindowBytes,
  pairWindowPages,
} from '../../store/page-pairs.ts';
import { isBitSet } from '../../vm/bits.ts';
import { reportedDirtyRate, type SampledPages, samplePagesOf } from '../../vm/dirty-rate.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { PageSet } from './cache-slots.ts';
import type { Random } from './seeded-random.ts';

/** Pages of a block that differ, by kind of change. The kinds add up to `changed`. */
export interface ChangeCounts {
  pages: number;
  changed: number;
  /** Zero before. */
  fromZero: number;
  /** Zero now. */
  toZero: number;
  /** Data before and now. */
  rewritten: number;
}

/** How the changed pages encode with XBZRLE. */
export interface XbzrleSizes {
  /** Pages whose new content is not zero; each was encoded against its old content. */
  pages: number;
  /** Those whose encoding is longer than QEMU allows, so that they are sent whole. */
  overflow: number;
  /** Bytes of the encodings that fit. */
  mean: number;
  median: number;
  /** Encodings by size: at most `upTo` bytes, and more than in the previous bucket. */
  histogram: { upTo: number; pages: number }[];
}

/** What an XBZRLE cache of some size would hold. */
export interface CacheSize {
  /** In bytes, as xbzrle-cache-size. */
  bytes: number;
  /** The share of changed pages with a slot of their own. */
  share: number;
}

/** How RAM changed between two saves. */
export interface RamChanges {
  blocks: (ChangeCounts & { idstr: string; pageSize: number })[];
  all: ChangeCounts;
  /** Bytes of the changed pages. */
  changedBytes: number;
  sampled: SampledPages & {
    perGiB: number;
    /** MiB/s as QEMU reports it, if a page was sampled. */
    rate?: number;
  };
  /** Not for pages of more than 16 KiB, which XBZRLE does not support. */
  xbzrle?: XbzrleSizes;
  cache: {
    /** The smallest sizes in which all changed pages, and 95 % of them, have a slot of their own. */
    all: CacheSize;
    most: CacheSize;
    /** The share that has one in QEMU's default of 64 MiB. */
    shareOfDefault: number;
  };
}

/** How changes are measured. */
export interface RamChangesOptions extends Abortable {
  /** Between the saves. */
  intervalMs: number;
  /** Pages sampled for each GiB. */
  samplePages: number;
  random: Random;
  variant?: KernelVariant;
}

const defaultCache = 64 << 20;
/** The buckets' sizes. */
const histogramSizes = [16, 64, 256, 1024, 4096, 16384];

/** Reads both contents once. @throws RangeError if their blocks differ */
export async function measureChanges(old: RamReader, now: RamReader, options: RamChangesOptions): Promise<RamChanges> {
  return compareContents(abortableRam(old, options), abortableRam(now, options), options);
}

async function compareContents(old: RamReader, now: RamReader, options: RamChangesOptions): Promise<RamChanges> {
  const pairs = requireSameBlocks(old.blocks, now.blocks);
  const counter = await ChangeCounter.make(now.blocks, options.variant);
  for (const pair of pairs) await counter.count(old, now, pair);
  return counter.report(options);
}

class ChangeCounter {
  readonly #kernel: Kernel;
  readonly #walk: PagePairs;
  readonly #olds: Uint32Array;
  readonly #news: Uint32Array;
  readonly #results: Int32Array;
  readonly #encodings: number;
  readonly #set: PageSet;
  readonly #blocks: readonly RamBlock[];
  /** The number of each block's first page, counted over all blocks. */
  readonly #firsts = new Map<string, number>();
  readonly #found: RamChanges['blocks'] = [];
  /** The number of encodings by length. */
  readonly #lengths: Uint32Array;
  #overflow = 0;

  private constructor(kernel: Kernel, blocks: readonly RamBlock[]) {
    this.#kernel = kernel;
    this.#walk = new PagePairs(kernel);
    this.#olds = kernel.u32(kernel.allocate(pairWindowPages * 4), pairWindowPages);
    this.#news = kernel.u32(kernel.allocate(pairWindowPages * 4), pairWindowPages);
    this.#results = kernel.i32(kernel.allocate(pairWindowPages * 4), pairWindowPages);
    this.#encodings = kernel.allocate(pairWindowBytes + kernel.xbzrleEncodeSlack);
    this.#lengths = new Uint32Array(kernel.xbzrleMaxPage + 1);
    this.#blocks = blocks;
    let pages = 0;
    for (const block of blocks) {
      this.#firsts.set(block.idstr, pages);
      pages += pageCount(block);
    }
    this.#set = new PageSet(pages);
  }

  static async make(blocks: readonly RamBlock[], variant: KernelVariant | undefined): Promise<ChangeCounter> {
    const tables = arenaBytes(pairWindowBytes + encodeSlackBytes, ...Array(3).fill(pairWindowPages * 4));
    return new ChangeCounter(await loadKernelFor([pagePairsArenaBytes, tables], variant), blocks);
  }

  async count(old: RamReader, now: RamReader, pair: BlockPair): Promise<void> {
    const { idstr, pageSize } = pair.newBlock;
    const base = this.#firsts.get(idstr) as number;
    const counts: ChangeCounts = { pages: pageCount(pair.newBlock), changed: 0, fromZero: 0, toZero: 0, rewritten: 0 };
    for await (const span of this.#walk.spans(old, now, pair)) {
      if (span.isGap || span.changedCount === 0) continue;
      const encode = this.#gather(span, pageSize, base, counts);
      if (encode > 0 && pageSize <= this.#kernel.xbzrleMaxPage) this.#encode(encode, pageSize);
    }
    this.#found.push({ idstr, pageSize, ...counts });
  }

  /** Counts changes in a window. Returns how many pages to encode. */
  #gather(window: PairWindow, pageSize: number, base: number, counts: ChangeCounts): number {
    let encode = 0;
    for (let i = 0; i < window.count; i++) {
      if (!isBitSet(window.changed, i)) continue;
      counts.changed++;
      this.#set.add(base + window.first + i);
      if (isBitSet(window.newZero, i)) {
        counts.toZero++;
        continue;
      }
      if (isBitSet(window.oldZero, i)) counts.fromZero++;
      else counts.rewritten++;
      this.#olds[encode] = window.old + i * pageSize;
      this.#news[encode++] = window.new + i * pageSize;
    }
    return encode;
  }

  #encode(count: number, pageSize: number): void {
    const kernel = this.#kernel;
    const [olds, news, results] = [this.#olds.byteOffset, this.#news.byteOffset, this.#results.byteOffset];
    kernel.xbzrleEncodeBatch(olds, news, count, pageSize, pageSize, this.#encodings, results);
    for (let i = 0; i < count; i++) {
      const length = this.#results[i] as number;
      if (length === kernel.xbzrleOverflow) this.#overflow++;
      else this.#lengths[length]!++;
    }
  }

  report({ intervalMs, samplePages, random }: RamChangesOptions): RamChanges {
    const all = this.#found.reduce(add, { pages: 0, changed: 0, fromZero: 0, toZero: 0, rewritten: 0 });
    const isDirty = ({ idstr }: RamBlock, page: number) => this.#set.has((this.#firsts.get(idstr) as number) + page);
    const sampled = samplePagesOf(this.#blocks, samplePages, random, isDirty);
    const rate = reportedDirtyRate(sampled, intervalMs);
    const pageSize = this.#blocks[0]?.pageSize ?? 4096;
    return {
      blocks: this.#found,
      all,
      changedBytes: this.#found.reduce((sum, block) => sum + block.changed * block.pageSize, 0),
      sampled: { ...sampled, perGiB: samplePages, ...(rate === undefined ? {} : { rate }) },
      ...(pageSize <= this.#kernel.xbzrleMaxPage ? { xbzrle: sizes(this.#lengths, this.#overflow) } : {}),
      cache: this.#cache(all.changed, pageSize),
    };
  }

  #cache(changed: number, pageSize: number): RamChanges['cache'] {
    const steps = this.#set.aloneBySlots();
    const share = (alone: number) => (changed === 0 ? 1 : alone / changed);
    const last = steps.at(-1) as (typeof steps)[number];
    const smallest = (least: number): CacheSize => {
      const { slots, alone } = steps.find((step) => share(step.alone) >= least) ?? last;
      return { bytes: slots * pageSize, share: share(alone) };
    };
    const byDefault = steps.findLast(({ slots }) => slots * pageSize <= defaultCache) ?? last;
    return { all: smallest(1), most: smallest(0.95), shareOfDefault: share(byDefault.alone) };
  }
}

function add(sum: ChangeCounts, block: ChangeCounts): ChangeCounts {
  return {
    pages: sum.pages + block.pages,
    changed: sum.changed + block.changed,
    fromZero: sum.fromZero + block.fromZero,
    toZero: sum.toZero + block.toZero,
    rewritten: sum.rewritten + block.rewritten,
  };
}

function sizes(lengths: Uint32Array, overflow: number): XbzrleSizes {
  let fitting = 0;
  let bytes = 0;
  for (const [length, count] of lengths.entries()) {
    fitting += count;
    bytes += length * count;
  }
  let before = 0;
  let median = 0;
  while (median < lengths.length && before + (lengths[median] as number) < fitting / 2)
    before += lengths[median++] as number;
  const histogram = histogramSizes.map((upTo, i) => {
    const from = i === 0 ? 0 : (histogramSizes[i - 1] as number) + 1;
    return { upTo, pages: lengths.subarray(from, upTo + 1).reduce((sum, count) => sum + count, 0) };
  });
  const largest = histogram.findLastIndex(({ pages }) => pages > 0);
  return {
    pages: fitting + overflow,
    overflow,
    mean: fitting === 0 ? 0 : bytes / fitting,
    median: fitting === 0 ? 0 : median,
    histogram: histogram.slice(0, largest + 1),
  };
}

function requireSameBlocks(olds: readonly RamBlock[], news: readonly RamBlock[]): BlockPair[] {
  const { pairs, onlyOld, onlyNew } = matchBlocks(olds, news);
  const [missing] = onlyOld;
  const [extra] = onlyNew;
  if (missing !== undefined)
    throw new RangeError(`the later file has no RAM block ${missing.idstr}: expected the same VM`);
  if (extra !== undefined)
    throw new RangeError(`only the later file has a RAM block ${extra.idstr}: expected the same VM`);
  for (const { oldBlock, newBlock } of pairs) {
    if (oldBlock.usedLength === newBlock.usedLength && oldBlock.pageSize === newBlock.pageSize) continue;
    const size = ({ usedLength, pageSize }: RamBlock) => `${usedLength} bytes in pages of ${pageSize}`;
    throw new RangeError(
      `RAM block ${newBlock.idstr}: expected ${size(oldBlock)} in the later file too, got ${size(newBlock)}`,
    );
  }
  return pairs;
}
