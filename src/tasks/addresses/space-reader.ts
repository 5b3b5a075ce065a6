/** Runs of contiguous addresses, read as if each were a RAM block. */
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { readPart } from '../extract/range.ts';

/** Pages of a run that lie in one RAM block, one after the other. */
export interface Part {
  /** The first of them in the run. */
  page: number;
  /** How many, in the run's pages. */
  pages: number;
  block: RamBlock;
  /** Where the first is in the block, in bytes. */
  offset: number;
}

/** Contiguous addresses. `usedLength` is their number; `pageSize` is that of the run, which may differ from the blocks'. */
export interface SpaceRun extends RamBlock {
  readonly address: bigint;
  readonly parts: readonly Part[];
}

/** A place in a RAM block. */
export interface BlockPlace {
  block: RamBlock;
  /** Bytes from the beginning of the block. */
  offset: number;
}

/** Bytes of a RAM block. */
export interface BlockRange extends BlockPlace {
  length: number;
}

/** Where a byte of a run is. */
export function placeOf({ parts, pageSize }: SpaceRun, offset: number): BlockPlace {
  const part = partAt(parts, Math.floor(offset / pageSize));
  return { block: part.block, offset: part.offset + offset - part.page * pageSize };
}

/** Where bytes of a run are, in the order of their addresses. */
export function* placesWithin(
  { parts, pageSize }: SpaceRun,
  from: number,
  length: number,
): Generator<BlockRange, void> {
  for (const { page, pages, block, offset } of parts) {
    const start = page * pageSize;
    const first = Math.max(from, start);
    const end = Math.min(from + length, start + pages * pageSize);
    if (first < end) yield { block, offset: offset + first - start, length: end - first };
  }
}

/** Reads runs out of the blocks behind them. Its `blocks` are those of `ram`: a run is not among them. */
export function spaceReader(ram: RamReader): RamReader {
  return {
    blocks: ram.blocks,
    state(run, page) {
      const { block, offset } = placeOf(run as SpaceRun, page * run.pageSize);
      return ram.state(block, Math.floor(offset / block.pageSize));
    },
    read: (run, page, target) => readRun(ram, run as SpaceRun, page, target),
    nextData: (run, page, limit) => nextData(ram, run as SpaceRun, page, limit),
    close: () => ram.close(),
  };
}

async function readRun(ram: RamReader, { parts, pageSize }: SpaceRun, page: number, target: Uint8Array): Promise<void> {
  let at = 0;
  while (at < target.length) {
    const first = page + at / pageSize;
    const part = partAt(parts, first);
    const skipped = (first - part.page) * pageSize;
    const count = Math.min(part.pages * pageSize - skipped, target.length - at);
    for await (const { length, bytes } of readPart(ram, part.block, part.offset + skipped, count)) {
      if (bytes === undefined) target.fill(0, at, at + length);
      else target.set(bytes, at);
      at += length;
    }
  }
}

async function nextData(
  ram: RamReader,
  run: SpaceRun,
  from: number,
  limit: number,
): Promise<{ first: number; end: number }> {
  const { parts, pageSize } = run;
  const pages = pageCount(run);
  for (let page = from; page < pages; ) {
    const part = partAt(parts, page);
    const end = part.page + part.pages;
    const { block, offset } = placeOf(run, page * pageSize);
    const wanted = Math.max(1, Math.ceil((limit * pageSize) / block.pageSize));
    const found = await ram.nextData(block, Math.floor(offset / block.pageSize), wanted);
    const toPage = (byte: number) => part.page + (byte - part.offset) / pageSize;
    const first = Math.max(page, Math.floor(toPage(found.first * block.pageSize)));
    const last = Math.min(end, first + limit, Math.ceil(toPage(found.end * block.pageSize)));
    if (found.end > found.first && first < last) return { first, end: last };
    page = end;
  }
  return { first: pages, end: pages };
}

/** The part that a page is in. */
function partAt(parts: readonly Part[], page: number): Part {
  let low = 0;
  let high = parts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((parts[middle] as Part).page <= page) low = middle;
    else high = middle - 1;
  }
  return parts[low] as Part;
}
