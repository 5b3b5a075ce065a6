/** Reading pages that stand at fixed places, page i at `origin + i * page size`, where they have data. */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import { mergeGap } from '../wire/mapped-ram.ts';

type Run = { first: number; end: number };

/** What knows which pages of a block have data. */
export interface PageMap {
  readonly block: RamBlock;
  /**
   * The first run of data pages in `[page, end)`; empty, and at `end`, if there is none. No page behind `end` is looked
   * at: there may be a hole of many GiB, and whoever reads window by window would go through it each time.
   */
  dataBefore(page: number, end: number): Run | Promise<Run>;
}

/**
 * Reads whole pages from `page` on into `target`; those without data become zeros.
 * @throws RangeError for pages that are not in the block, or a target that is not whole pages.
 */
export async function readPages(
  source: ByteSource,
  origin: number,
  map: PageMap,
  page: number,
  target: Uint8Array,
): Promise<void> {
  const { block } = map;
  const { pageSize } = block;
  const end = page + target.length / pageSize;
  if (!Number.isSafeInteger(page) || !Number.isSafeInteger(end) || page < 0 || end > pageCount(block)) {
    const expected = `whole pages from 0 to ${pageCount(block)}, ${pageSize} bytes each`;
    throw new RangeError(`${block.idstr}: expected ${expected}, got ${target.length} bytes at page ${page}`);
  }
  const placeOf = (at: number) => (at - page) * pageSize;
  const clear = (from: number, to: number) => target.fill(0, placeOf(from), placeOf(to));
  for (let at = page; at < end; ) {
    const run = await map.dataBefore(at, end);
    clear(at, run.first);
    // Runs with little between them are read in one go, and what is between is cleared.
    const gaps: Run[] = [];
    let to = run.end;
    while (to < end) {
      const next = await map.dataBefore(to, Math.min(end, to + mergeGap));
      if (next.end === next.first) break;
      if (next.first > to) gaps.push({ first: to, end: next.first });
      to = next.end;
    }
    if (to > run.first)
      await readFully(source, target.subarray(placeOf(run.first), placeOf(to)), origin + run.first * pageSize);
    for (const gap of gaps) clear(gap.first, gap.end);
    at = to;
  }
}
