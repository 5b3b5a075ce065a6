/** Reads pages with fixed places: page i is at `origin + i * page size` if it has data. */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import { mergeGap } from '../wire/mapped-ram.ts';

type Run = { first: number; end: number };

/** Knows which pages of a block have data. */
export interface PageMap {
  readonly block: RamBlock;
  /**
   * The first run of data pages in `[page, end)`; empty, and at `end`, if there is none. It does not look at pages
   * after `end`. A hole of many GiB may begin there, and a reader that works in windows would search it again for each
   * window.
   */
  dataBefore(page: number, end: number): Run | Promise<Run>;
}

/**
 * Reads whole pages from `page` on into `target`. Pages without data become zeros.
 * @throws RangeError for pages beyond the block, or a target that is not whole pages
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
    // Runs with small gaps between them are read together. Then the gaps are cleared.
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
