/**
 * Reads the RAM of a stream in place. An index says where in the file the last record of each page has its bytes. This
 * works for sources with random access if the last record of every page is a whole page. Content with XBZRLE deltas,
 * compressed pages, or pages from outside the stream itself must be settled into a store instead.
 *
 * The index is a list of runs. The pages of a run follow each other in the block, and also in the file, with a header
 * between them:
 *
 *     file    |hdr|page 7|hdr|page 8|hdr|page 9|hdr|zero page 10|hdr|page 11|
 *     run          page 7, 3 pages, stride header + page                 page 11, 1 page
 */

import { type ByteSource, readFully } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { MigrationFile } from '../read/open.ts';
import { asyncDispose } from '../vm/auto-closed.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type PageRun, PageStates, tallyPages } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState } from '../vm/ram-store.ts';
import type { FlowSink } from './flow-sink.ts';

/** Bytes of a page record before its page, if the record does not name its block. */
const headerBytes = 8;
/** The most runs: 24 MiB of index. A stream with more is settled. */
const maxRuns = 1_000_000;
/** Bytes read at a time. Gaps up to this length between pages are read rather than skipped. */
const extentBytes = 1 << 20;
const smallGap = 16 * 1024;

/** The stream is sound so far, but does not contain all content as whole pages. The message gives the reason. */
export class NotIndexable extends Error {
  override readonly name = 'NotIndexable';
}

const notWhole: Record<number, string> = {
  [PageKind.delta]: 'the stream has XBZRLE deltas',
  [PageKind.compressed]: 'the stream has compressed pages',
};

export class StreamIndex implements OpenedRam, FlowSink {
  readonly blocks: RamBlock[] = [];
  readonly #file: MigrationFile;
  readonly #source: ByteSource;
  readonly #only: (block: RamBlock) => boolean;
  readonly #areas: IndexedBlock[] = [];
  #runs = 0;
  /** A buffer that no read uses at present. */
  #buffer: Uint8Array | undefined;

  constructor(file: MigrationFile, only: (block: RamBlock) => boolean) {
    this.#file = file;
    this.#source = file.content;
    this.#only = only;
  }

  /** Takes blocks, pages, discards and the end. @throws NotIndexable */
  take(item: FlowItem): void {
    if (item.kind === 'block') this.addBlock(item.block);
    else if (item.kind === 'pages') this.apply(item.block, item.batch);
    else if (item.kind === 'end') this.finish();
    else if (item.kind === 'discard')
      throw new NotIndexable('the stream discards pages, which may come from elsewhere');
  }

  addBlock(block: RamBlock): void {
    this.blocks.push(block);
    this.#areas.push(new IndexedBlock(block));
  }

  /** Records the places of a batch's pages. @throws NotIndexable */
  apply(block: RamBlock, batch: PageBatch): void {
    if (!this.#only(block)) return;
    const area = this.#area(block);
    const before = area.runs.length;
    for (let i = 0; i < batch.count; i++) {
      const page = batch.page[i] as number;
      const kind = batch.kind[i];
      if (kind === PageKind.zero) {
        area.addZero(page);
        continue;
      }
      const offset = kind === PageKind.data ? this.#file.offsetOf(batch.data[i] as number) : undefined;
      if (offset === undefined) throw new NotIndexable(notWhole[kind as number] ?? 'pages are not in the stream');
      area.addData(page, offset);
    }
    this.#runs += area.runs.length - before;
    if (this.#runs > maxRuns) throw new NotIndexable('the pages lie in too many places');
  }

  /** Ends the index. For each page the last place counts. */
  finish(): void {
    for (const area of this.#areas) area.resolve();
  }

  state(block: RamBlock, page: number): PageState {
    const state = this.#area(block).states.get(page);
    return state === PageKind.data ? 'data' : state === PageKind.zero ? 'zero' : 'absent';
  }

  isAbsent(block: RamBlock, page: number): boolean {
    return this.#area(block).states.get(page) === PageKind.absent;
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    return this.#area(block).nextData(page, limit);
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { pageSize } = block;
    const end = page + target.length / pageSize;
    if (!Number.isSafeInteger(page) || !Number.isSafeInteger(end) || page < 0 || end > pageCount(block)) {
      const expected = `whole pages from 0 to ${pageCount(block)}, ${pageSize} bytes each`;
      throw new RangeError(`${block.idstr}: expected ${expected}, got ${target.length} bytes at page ${page}`);
    }
    const buffer = this.#buffer ?? new Uint8Array(extentBytes);
    this.#buffer = undefined;
    let filled = page;
    for (const extent of this.#area(block).extents(page, end)) {
      const bytes = buffer.subarray(0, extent.to - extent.from);
      await readFully(this.#source, bytes, extent.from);
      for (const { page: first, offset, count } of extent.runs) {
        target.fill(0, (filled - page) * pageSize, (first - page) * pageSize);
        for (let i = 0; i < count; i++) {
          const at = offset - extent.from + i * (headerBytes + pageSize);
          target.set(bytes.subarray(at, at + pageSize), (first + i - page) * pageSize);
        }
        filled = first + count;
      }
    }
    target.fill(0, (filled - page) * pageSize);
    this.#buffer = buffer;
  }

  /** The place of a page's bytes in the source. Undefined for a page without data. */
  placeOf(block: RamBlock, page: number): number | undefined {
    return this.#area(block).placeOf(page);
  }

  absentRuns(block: RamBlock): Iterable<PageRun> {
    return this.#area(block).states.absentRuns(pageCount(block));
  }

  absentPages(block: RamBlock): number {
    return tallyPages(block, this.#area(block).states).absentPages;
  }

  /** Leaves the file open, because the caller owns it. */
  async close(): Promise<void> {}

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  #area(block: RamBlock): IndexedBlock {
    const area = this.#areas[block.index];
    if (area !== undefined) return area;
    throw new RangeError(`expected a block of this stream, got "${block.idstr}"`);
  }
}

/** Pages that follow each other. `offset` is that of the first page's bytes, or -1 for pages that became zero. */
interface Run {
  page: number;
  count: number;
  offset: number;
}

/** Runs that are read together, and their places. */
interface Extent {
  from: number;
  to: number;
  runs: Run[];
}

class IndexedBlock {
  /** `PageKind.absent`, `.zero` or `.data` of each page. */
  readonly states = new PageStates();
  runs = new RunList();
  readonly #block: RamBlock;
  /** Whether some page has several places. */
  #isRewritten = false;

  constructor(block: RamBlock) {
    this.#block = block;
  }

  addZero(page: number): void {
    if (this.states.get(page) === PageKind.data) this.#append(page, -1);
    this.states.set(page, PageKind.zero);
  }

  addData(page: number, offset: number): void {
    this.#append(page, offset);
    this.states.set(page, PageKind.data);
  }

  #append(page: number, offset: number): void {
    const { runs } = this;
    const last = runs.length - 1;
    // A run may also be out of order if an earlier page was zero.
    if (this.states.get(page) !== PageKind.absent || (last >= 0 && page < runs.endOf(last))) this.#isRewritten = true;
    runs.add(page, offset, headerBytes + this.#block.pageSize);
  }

  /** Keeps only the last place of each page, in ascending order. */
  resolve(): void {
    if (!this.#isRewritten) return;
    const log = this.runs;
    const stride = headerBytes + this.#block.pageSize;
    const settled = new PageStates();
    const left = new RunList();
    for (let i = log.length - 1; i >= 0; i--) {
      const [first, offset] = [log.page(i), log.offset(i)];
      for (let page = first; page < log.endOf(i); page++) {
        if (settled.get(page) !== 0) continue;
        settled.set(page, 1);
        if (offset === -1) continue;
        const at = offset + (page - first) * stride;
        left.add(page, at, stride);
      }
    }
    this.runs = left.sorted();
  }

  placeOf(page: number): number | undefined {
    const { runs } = this;
    const i = runs.find(page);
    if (i === runs.length || runs.page(i) > page) return undefined;
    return runs.offset(i) + (page - runs.page(i)) * (headerBytes + this.#block.pageSize);
  }

  nextData(page: number, limit: number): { first: number; end: number } {
    const { runs } = this;
    let i = runs.find(page);
    if (i === runs.length) return { first: pageCount(this.#block), end: pageCount(this.#block) };
    const first = Math.max(page, runs.page(i));
    let end = runs.endOf(i);
    while (end - first < limit && ++i < runs.length && runs.page(i) === end) end = runs.endOf(i);
    return { first, end: Math.min(end, first + limit) };
  }

  /** Yields the reads for the data within a range of pages. */
  *extents(from: number, to: number): Generator<Extent, void> {
    const { runs } = this;
    const { pageSize } = this.#block;
    const stride = headerBytes + pageSize;
    const most = Math.floor(extentBytes / stride);
    let extent: Extent | undefined;
    for (let i = runs.find(from); i < runs.length && runs.page(i) < to; i++) {
      const stop = Math.min(to, runs.endOf(i));
      for (let page = Math.max(from, runs.page(i)); page < stop; ) {
        const count = Math.min(most, stop - page);
        const offset = runs.offset(i) + (page - runs.page(i)) * stride;
        const end = offset + (count - 1) * stride + pageSize;
        const isNear = extent !== undefined && offset >= extent.to && offset <= extent.to + smallGap;
        if (extent !== undefined && isNear && end - extent.from <= extentBytes) {
          extent.to = end;
          extent.runs.push({ page, count, offset });
        } else {
          if (extent !== undefined) yield extent;
          extent = { from: offset, to: end, runs: [{ page, count, offset }] };
        }
        page += count;
      }
    }
    if (extent !== undefined) yield extent;
  }
}

/** Runs as a table that grows: page, count, offset. */
class RunList {
  length = 0;
  #table = new Float64Array(3 * 64);

  page(i: number): number {
    return this.#table[3 * i] as number;
  }

  count(i: number): number {
    return this.#table[3 * i + 1] as number;
  }

  offset(i: number): number {
    return this.#table[3 * i + 2] as number;
  }

  /** The page after a run. */
  endOf(i: number): number {
    return this.page(i) + this.count(i);
  }

  /** Adds a page, to the last run if it continues that run in the block and in the file. */
  add(page: number, offset: number, stride: number): void {
    const last = this.length - 1;
    const isNext = last >= 0 && this.endOf(last) === page;
    const expected = last >= 0 && this.offset(last) !== -1 ? this.offset(last) + this.count(last) * stride : -1;
    if (isNext && offset === expected) this.#table[3 * last + 1] = this.count(last) + 1;
    else this.#push(page, 1, offset);
  }

  #push(page: number, count: number, offset: number): void {
    if (3 * this.length === this.#table.length) {
      const table = new Float64Array(2 * this.#table.length);
      table.set(this.#table);
      this.#table = table;
    }
    const at = 3 * this.length++;
    this.#table[at] = page;
    this.#table[at + 1] = count;
    this.#table[at + 2] = offset;
  }

  /** Returns the same runs in the order of their pages. */
  sorted(): RunList {
    const order = Uint32Array.from({ length: this.length }, (_, i) => i).sort((a, b) => this.page(a) - this.page(b));
    const list = new RunList();
    for (const i of order) list.#push(this.page(i), this.count(i), this.offset(i));
    return list;
  }

  /** The first of ascending runs that ends after a page. */
  find(page: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.endOf(middle) <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
