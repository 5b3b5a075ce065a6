/** Reading pages that stand at fixed places, page i at `origin + i * page size`, where they have data. */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';

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
  for (let at = page; at < end; ) {
    const run = await map.nextData(at, end - at);
    const first = Math.min(run.first, end);
    const stop = Math.max(first, Math.min(run.end, end));
    target.fill(0, (at - page) * pageSize, (first - page) * pageSize);
    if (stop > first) {
      const piece = target.subarray((first - page) * pageSize, (stop - page) * pageSize);
      await readFully(source, piece, origin + first * pageSize);
    }
    at = stop;
  }
}
