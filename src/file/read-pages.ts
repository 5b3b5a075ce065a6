/** Reading pages that stand at fixed places, page i at `origin + i * page size`, where they have data. */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';

/** Data pages with fewer pages than this between them are read in one go. */
const mergeGap = 8;

type Run = { first: number; end: number };

/** What knows which pages of a block have data; see `RamReader.nextData`. */
export interface PageMap {
  readonly block: RamBlock;
  nextData(page: number, limit: number): Run | Promise<Run>;
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
    const first = await nextRun(map, at, end);
    clear(at, first.from);
    // Runs with little between them are read in one go, and what is between is cleared.
    const gaps: Span[] = [];
    let { to } = first;
    while (to < end) {
      const next = await nextRun(map, to, Math.min(end, to + mergeGap));
      if (next.to === next.from) break;
      if (next.from > to) gaps.push({ from: to, to: next.from });
      to = next.to;
    }
    if (to > first.from)
      await readFully(source, target.subarray(placeOf(first.from), placeOf(to)), origin + first.from * pageSize);
    for (const gap of gaps) clear(gap.from, gap.to);
    at = to;
  }
}

interface Span {
  from: number;
  to: number;
}

/** The next run of pages with data from `at` on, as far as it begins before `end`; empty, and at `end`, if there is none. */
async function nextRun(map: PageMap, at: number, end: number): Promise<Span> {
  const { first, end: to } = await map.nextData(at, end - at);
  const from = Math.min(first, end);
  return { from, to: Math.max(from, Math.min(to, end)) };
}
