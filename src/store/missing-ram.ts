/**
 * What a partial file lacks: the evidence, and the pages. A page is missing if the file has no valid copy of it, and
 * evidence shows that there was one (`incompleteCodes`). Without evidence, pages that were never sent are not missing.
 */
import { type Finding, MigrationError } from '../vm/migration-error.ts';
import type { PageRun } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** The most ranges of a block that are listed. */
const maxListed = 10_000;
/** The most runs of missing pages that are kept. */
const maxRuns = 2_000_000;

/** The missing pages of a RAM block. Offsets and lengths are in bytes. */
export interface MissingPages {
  /** idstr. */
  block: string;
  /** How many pages are missing. */
  pages: number;
  /** Bytes of these pages. */
  bytes: number;
  /** Where they are in the block, ascending: the first 10,000 ranges. */
  ranges: { offset: number; length: number }[];
  /** Ranges beyond the first 10,000. */
  rangesOmitted: number;
}

/** What a file lacks that was read with `partial`. */
export class MissingRam {
  /** What shows that something is missing, errors first. */
  readonly evidence: readonly Finding[];
  /** The blocks that lack pages. Blocks that were not asked for are not listed. */
  readonly blocks: readonly MissingPages[];
  /** By idstr; ascending. */
  readonly #runs: ReadonlyMap<string, readonly PageRun[]>;

  /** `runs` are the missing pages of each block, by idstr. */
  constructor(
    evidence: readonly Finding[],
    runs: ReadonlyMap<string, readonly PageRun[]>,
    blocks: readonly RamBlock[],
  ) {
    this.evidence = evidence;
    this.#runs = runs;
    this.blocks = blocks.flatMap((block) => {
      const ofBlock = runs.get(block.idstr) ?? [];
      return ofBlock.length === 0 ? [] : [listPages(block, ofBlock)];
    });
  }

  /** The same evidence, and of the pages only those in `[first, end)` of a block. */
  restrictedTo(block: RamBlock, first: number, end: number): MissingRam {
    return new MissingRam(this.evidence, new Map([[block.idstr, [...this.within(block, first, end)]]]), [block]);
  }

  /** Whether a page of a block is missing. */
  has(block: Pick<RamBlock, 'idstr'>, page: number): boolean {
    return this.hasAny(block, page, page + 1);
  }

  /** Whether any page of `[first, end)` of a block is missing. */
  hasAny(block: Pick<RamBlock, 'idstr'>, first: number, end: number): boolean {
    const [run] = this.within(block, first, end);
    return run !== undefined;
  }

  /** The runs of missing pages of a block within `[first, end)`, cut to it. */
  *within({ idstr }: Pick<RamBlock, 'idstr'>, first: number, end: number): Generator<PageRun, void> {
    const runs = this.#runs.get(idstr) ?? [];
    let low = 0;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((runs[middle] as PageRun).end <= first) low = middle + 1;
      else high = middle;
    }
    for (let run = runs[low]; run !== undefined && run.first < end; run = runs[++low]) {
      yield { first: Math.max(first, run.first), end: Math.min(end, run.end) };
    }
  }
}

/**
 * Finds the missing pages of some blocks of a content. Undefined if there is no evidence, so that nothing is missing.
 * `ignored` are the blocks that the migration left out.
 * @throws MigrationError `limit-exceeded` if they are in too many places
 */
export async function findMissing(
  ram: Pick<RamReader, 'blocks' | 'absentRuns'>,
  evidence: readonly Finding[],
  ignored: readonly RamBlock[],
  only: (block: RamBlock) => boolean = () => true,
): Promise<MissingRam | undefined> {
  const [first] = evidence;
  if (first === undefined) return undefined;
  const runs = new Map<string, PageRun[]>();
  let count = 0;
  for (const block of ram.blocks) {
    if (!only(block) || block.usedLength === 0) continue;
    const isIgnored = ignored.some(({ index }) => index === block.index);
    const ofBlock: PageRun[] = [];
    for await (const run of isIgnored ? [{ first: 0, end: pageCount(block) }] : (ram.absentRuns?.(block) ?? [])) {
      if (++count > maxRuns) {
        throw new MigrationError('limit-exceeded', `expected missing pages in at most ${maxRuns} places`, first.place);
      }
      ofBlock.push(run);
    }
    runs.set(block.idstr, ofBlock);
  }
  return new MissingRam(evidence, runs, ram.blocks);
}

function listPages({ idstr, pageSize }: RamBlock, runs: readonly PageRun[]): MissingPages {
  const pages = runs.reduce((sum, { first, end }) => sum + end - first, 0);
  const listed = runs.slice(0, maxListed);
  return {
    block: idstr,
    pages,
    bytes: pages * pageSize,
    ranges: listed.map(({ first, end }) => ({ offset: first * pageSize, length: (end - first) * pageSize })),
    rangesOmitted: runs.length - listed.length,
  };
}
