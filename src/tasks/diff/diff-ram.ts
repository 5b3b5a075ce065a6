/** The RAM of two VMs, block by block: how many pages differ, and where they are. */

import type { Abortable } from '../../io/abort.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { abortableRam } from '../../store/abortable-ram.ts';
import type { MissingRam } from '../../store/missing-ram.ts';
import {
  type BlockPair,
  matchBlocks,
  PagePairs,
  type PairSpan,
  type PairWindow,
  pagePairsArenaBytes,
} from '../../store/page-pairs.ts';
import { isBitSet } from '../../vm/bits.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { type PageRange, PageRanges } from './page-ranges.ts';

/** Pages that differ, by how they changed. */
export interface PageChanges {
  /** Different data in both. */
  changed: number;
  becameZero: number;
  becameData: number;
}

/** A block that both have. Pages that were never sent are compared as zeros. */
export interface BlockDiff {
  idstr: string;
  /** Bytes. */
  pageSize: number;
  oldLength: number;
  newLength: number;
  /**
   * Pages that were compared: those that both have, without missing ones; none if the page sizes differ or the content
   * was left out.
   */
  pages: number;
  /** Pages that were not compared, because a partial file lacks them. */
  missing: number;
  /** The same in both. */
  same: number;
  changes: PageChanges;
  /** Pages that were never sent, if the file distinguishes them from zero pages. */
  oldAbsent: number | undefined;
  newAbsent: number | undefined;
  /** Why the content was not compared, if it was not: pages of another size, or shared memory that was left out (x-ignore-shared). */
  notCompared: 'page-size' | 'old-ignored' | 'new-ignored' | 'both-ignored' | undefined;
  /** Where the differing pages are. */
  ranges: PageRange[];
  /** Whether all pages of all ranges differ. If there are too many ranges, near ones are merged. */
  areRangesExact: boolean;
  /** The block in equal pieces, with the number and kinds of differing pages in each. */
  map: MapCell[];
}

/** A piece of a block. */
export interface MapCell extends PageChanges {
  pages: number;
}

/** The differences in RAM. */
export interface RamDiff {
  blocks: BlockDiff[];
  /** Blocks that only one VM has. */
  onlyOld: { idstr: string; length: number }[];
  onlyNew: { idstr: string; length: number }[];
}

/** How RAM is compared. */
export interface DiffRamOptions extends Abortable {
  /** Ranges of each block. Default 1,000. */
  maxRanges?: number;
  /** Pieces of the map of each block. Default 1,024. */
  mapCells?: number;
  /** Blocks whose content a file lacks. */
  oldIgnored?: readonly RamBlock[];
  newIgnored?: readonly RamBlock[];
  /** What partial files lack. */
  missing?: { old: MissingRam | undefined; new: MissingRam | undefined };
  /** Called for each piece of two blocks after it was compared. */
  watch?: (pair: BlockPair, span: PairSpan) => void;
}

/** Whether all content is the same. Blocks that both files left out count as the same. */
export function isSameRam({ blocks, onlyOld, onlyNew }: RamDiff): boolean {
  if (onlyOld.length + onlyNew.length > 0) return false;
  return blocks.every(({ same, pages, oldLength, newLength, notCompared }) => {
    return same === pages && oldLength === newLength && (notCompared === undefined || notCompared === 'both-ignored');
  });
}

/** Compares all blocks that both have, matched by their names. */
export async function diffRam(olds: RamReader, news: RamReader, options: DiffRamOptions = {}): Promise<RamDiff> {
  return diffContents(abortableRam(olds, options), abortableRam(news, options), options);
}

async function diffContents(olds: RamReader, news: RamReader, options: DiffRamOptions = {}): Promise<RamDiff> {
  const { pairs, onlyOld, onlyNew } = matchBlocks(olds.blocks, news.blocks);
  const kernel = await loadKernelFor([pagePairsArenaBytes]);
  const walker = new PagePairs(kernel);
  const blocks: BlockDiff[] = [];
  for (const pair of pairs) blocks.push(await diffBlock(walker, olds, news, pair, options));
  const listed = ({ idstr, usedLength }: RamBlock) => ({ idstr, length: usedLength });
  return { blocks, onlyOld: onlyOld.map(listed), onlyNew: onlyNew.map(listed) };
}

async function diffBlock(
  walker: PagePairs,
  olds: RamReader,
  news: RamReader,
  pair: BlockPair,
  options: DiffRamOptions,
): Promise<BlockDiff> {
  const { oldBlock, newBlock } = pair;
  const { idstr, pageSize } = newBlock;
  const notCompared = whyNot(pair, options);
  const both = notCompared === undefined ? Math.min(pageCount(oldBlock), pageCount(newBlock)) : 0;
  const lacks = new MissingPair(options.missing, newBlock, both);
  const pages = both - lacks.count;
  const ranges = new PageRanges(options.maxRanges ?? 1000);
  const changes: PageChanges = { changed: 0, becameZero: 0, becameData: 0 };
  const map = emptyMap(both, options.mapCells ?? 1024);
  if (notCompared === undefined) {
    for await (const span of walker.spans(olds, news, pair)) {
      if (!span.isGap && span.changedCount > 0) takeWindow(span, both, changes, map, ranges, lacks);
      options.watch?.(pair, span);
    }
  }
  const lengths = { oldLength: oldBlock.usedLength, newLength: newBlock.usedLength };
  return {
    ...{ idstr, pageSize, ...lengths, pages, missing: lacks.count },
    same: pages - changes.changed - changes.becameZero - changes.becameData,
    changes,
    oldAbsent: notCompared === undefined ? olds.absentPages?.(oldBlock) : undefined,
    newAbsent: notCompared === undefined ? news.absentPages?.(newBlock) : undefined,
    notCompared,
    ranges: ranges.list(),
    areRangesExact: ranges.isExact,
    map,
  };
}

function whyNot({ oldBlock, newBlock }: BlockPair, options: DiffRamOptions): BlockDiff['notCompared'] {
  const { oldIgnored = [], newIgnored = [] } = options;
  const isOf = (list: readonly RamBlock[], { idstr }: RamBlock) => list.some((block) => block.idstr === idstr);
  const [isOld, isNew] = [isOf(oldIgnored, oldBlock), isOf(newIgnored, newBlock)];
  if (isOld && isNew) return 'both-ignored';
  if (isOld || isNew) return isOld ? 'old-ignored' : 'new-ignored';
  return oldBlock.pageSize === newBlock.pageSize ? undefined : 'page-size';
}

/** The pages of a block that one of two partial files lacks. */
class MissingPair {
  /** How many pages of those that both blocks have. */
  readonly count: number;
  readonly #block: RamBlock;
  readonly #files: readonly MissingRam[];

  constructor(missing: DiffRamOptions['missing'], block: RamBlock, pages: number) {
    this.#block = block;
    this.#files = [missing?.old, missing?.new].filter((each) => each !== undefined);
    const runs = this.#files.flatMap((each) => [...each.within(block, 0, pages)]);
    runs.sort((a, b) => a.first - b.first);
    let count = 0;
    let counted = 0;
    for (const { first, end } of runs) {
      count += Math.max(0, end - Math.max(first, counted));
      counted = Math.max(counted, end);
    }
    this.count = count;
  }

  has(page: number): boolean {
    return this.#files.some((each) => each.has(this.#block, page));
  }
}

/** Counts the differing pages of a window. */
function takeWindow(
  { first, count, changed, oldZero, newZero }: PairWindow,
  pages: number,
  changes: PageChanges,
  map: readonly MapCell[],
  ranges: PageRanges,
  lacks: MissingPair,
): void {
  for (let i = 0; i < count; i++) {
    if (!isBitSet(changed, i)) continue;
    const page = first + i;
    if (lacks.has(page)) continue;
    const kind = isBitSet(newZero, i) ? 'becameZero' : isBitSet(oldZero, i) ? 'becameData' : 'changed';
    changes[kind]++;
    (map[cellOf(page, pages, map.length)] as MapCell)[kind]++;
    ranges.add(page);
  }
}

/** Pieces as `mapPages` makes them: cell i begins at page floor(i * pages / cells). */
function emptyMap(pages: number, most: number): MapCell[] {
  const count = Math.min(pages, most);
  const start = (cell: number) => Math.floor((cell * pages) / count);
  return Array.from({ length: count }, (_, cell) => {
    return { pages: start(cell + 1) - start(cell), changed: 0, becameZero: 0, becameData: 0 };
  });
}

const cellOf = (page: number, pages: number, cells: number) => Math.floor(((page + 1) * cells - 1) / pages);
