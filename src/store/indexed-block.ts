/**
 * Where a block of a stream has its pages. Each page has a base: a whole page at some offset, or zeros. If the last records of the
 * page were XBZRLE deltas, it also has these deltas, which apply to the base in the order of the stream.
 *
 * The bases are a list of runs. The pages of a run follow each other in the block, and also in their source:
 *
 *     main stream  |hdr|page 7|hdr|page 8|hdr|page 9|hdr|zero page 10|hdr|page 11|
 *     run               page 7, 3 pages, stride header + page             page 11, 1 page
 *
 *     channel      |packet header|page 20|page 21|page 22|packet header|...
 *     run                         page 20, 3 pages, stride page
 *
 * An offset is one number for all sources: source i begins at `i * sourceSpan`.
 */
import { PageKind } from '../kernel/page-batch.ts';
import { discardedState, PageStates } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';

/** Bytes of a page record of the main stream before its page, if the record does not name its block. */
const headerBytes = 8;
/** Bytes read at a time: 1 MiB of pages, and their headers. */
export const extentBytes = (1 << 20) + ((1 << 20) / 1024) * headerBytes;
/** Gaps up to this length between pages are read rather than skipped. */
const smallGap = 16 * 1024;

/** Offsets per source, of which there are up to 256. The products are exact numbers. */
export const sourceSpan = 2 ** 45;

/** Offsets that stand for pages without bytes: zero or discarded ones, and those whose deltas apply to zeros. */
const noPage = -1;
const zeroBase = -2;

/** Pages that follow each other. `offset` is that of the first page's bytes. */
interface Run {
  page: number;
  count: number;
  offset: number;
}

/** Runs that are read together, and their places. */
export interface Extent {
  from: number;
  to: number;
  runs: Run[];
}

/** A delta of a page. */
export interface Delta {
  page: number;
  offset: number;
  length: number;
}

export class IndexedBlock {
  /** `PageKind.absent`, `.zero`, `.data` or `.delta`, or `discardedState`: the last record of each page. */
  readonly states = new PageStates();
  readonly #block: RamBlock;
  #runs: RunList;
  #deltas = new Triples();
  /** Whether some page has several places. */
  #isRewritten = false;

  constructor(block: RamBlock) {
    this.#block = block;
    this.#runs = new RunList(block.pageSize);
  }

  /** Entries of the index. */
  get entries(): number {
    return this.#runs.length + this.#deltas.length;
  }

  addZero(page: number): void {
    this.#drop(page);
    this.states.set(page, PageKind.zero);
  }

  addData(page: number, offset: number): void {
    if (this.states.get(page) === PageKind.delta) this.#deltas.push(page, 0, noPage);
    this.#append(page, offset);
    this.states.set(page, PageKind.data);
  }

  addDelta(page: number, offset: number, length: number): void {
    if (!this.#hasData(page)) this.#append(page, zeroBase);
    this.#deltas.push(page, length, offset);
    this.states.set(page, PageKind.delta);
  }

  discard(first: number, end: number): void {
    const { states } = this;
    for (let page = states.nextSet(first, end); page < end; page = states.nextSet(page + 1, end)) this.#drop(page);
    states.fill(first, end, discardedState);
  }

  /** Forgets the places of a page. */
  #drop(page: number): void {
    if (!this.#hasData(page)) return;
    if (this.states.get(page) === PageKind.delta) this.#deltas.push(page, 0, noPage);
    this.#append(page, noPage);
  }

  #hasData(page: number): boolean {
    const state = this.states.get(page);
    return state === PageKind.data || state === PageKind.delta;
  }

  #append(page: number, offset: number): void {
    const runs = this.#runs;
    const last = runs.length - 1;
    // A run may also be out of order if an earlier page was zero.
    if (this.states.get(page) !== PageKind.absent || (last >= 0 && page < runs.endOf(last))) this.#isRewritten = true;
    runs.add(page, offset);
  }

  /** Keeps only the last base of each page and the deltas after it, in the order of the pages. */
  resolve(): void {
    this.#deltas = lastDeltas(this.#deltas);
    if (!this.#isRewritten) return;
    const log = this.#runs;
    const settled = new PageStates();
    const left = new RunList(this.#block.pageSize);
    for (let i = log.length - 1; i >= 0; i--) {
      for (let page = log.page(i); page < log.endOf(i); page++) {
        if (settled.get(page) !== 0) continue;
        settled.set(page, 1);
        const at = log.placeIn(i, page);
        if (at !== noPage) left.add(page, at);
      }
    }
    this.#runs = left.sorted();
    this.#isRewritten = false;
  }

  /** The place of a whole page; undefined if the page is not whole in any source. */
  placeOf(page: number): number | undefined {
    const runs = this.#runs;
    const i = runs.find(page);
    if (this.states.get(page) !== PageKind.data || i === runs.length || runs.page(i) > page) return undefined;
    return runs.placeIn(i, page);
  }

  /**
   * The run of whole pages from `page` on: where it begins in the main stream, and how many pages it has. Undefined if
   * there is none, or if the pages there have deltas.
   */
  runFrom(page: number, limit: number): { offset: number; count: number } | undefined {
    const offset = this.placeOf(page);
    if (offset === undefined || offset >= sourceSpan) return undefined;
    const end = Math.min(page + limit, this.#runs.endOf(this.#runs.find(page)));
    let count = 1;
    while (page + count < end && this.states.get(page + count) === PageKind.data) count++;
    return { offset, count };
  }

  nextData(page: number, limit: number): { first: number; end: number } {
    const runs = this.#runs;
    let i = runs.find(page);
    if (i === runs.length) return { first: pageCount(this.#block), end: pageCount(this.#block) };
    const first = Math.max(page, runs.page(i));
    let end = runs.endOf(i);
    while (end - first < limit && ++i < runs.length && runs.page(i) === end) end = runs.endOf(i);
    return { first, end: Math.min(end, first + limit) };
  }

  /** Yields the reads for the bases within a range of pages. */
  *extents(from: number, to: number): Generator<Extent, void> {
    const runs = this.#runs;
    const { pageSize } = this.#block;
    let extent: Extent | undefined;
    for (let i = runs.find(from); i < runs.length && runs.page(i) < to; i++) {
      if (runs.offset(i) < 0) continue;
      const stride = strideAt(runs.offset(i), pageSize);
      const most = Math.floor(extentBytes / stride);
      const stop = Math.min(to, runs.endOf(i));
      for (let page = Math.max(from, runs.page(i)); page < stop; ) {
        const count = Math.min(most, stop - page);
        const offset = runs.placeIn(i, page);
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

  /** The deltas of a range of pages, by page and in the order of the stream. */
  *deltas(from: number, to: number): Generator<Delta, void> {
    const list = this.#deltas;
    for (let i = list.firstFrom(from); i < list.length && list.get(i, 0) < to; i++) {
      yield { page: list.get(i, 0), length: list.get(i, 1), offset: list.get(i, 2) };
    }
  }
}

/** Bytes from a page to the next one of its run. */
export const strideAt = (offset: number, pageSize: number): number =>
  offset < sourceSpan ? headerBytes + pageSize : pageSize;

/** The deltas after the last base of each page, by page. `log` has a delta of length 0 where a page got a new base. */
function lastDeltas(log: Triples): Triples {
  const sorted = log.sorted();
  const left = new Triples();
  for (let i = 0; i < sorted.length; ) {
    const page = sorted.get(i, 0);
    let first = i;
    for (; i < sorted.length && sorted.get(i, 0) === page; i++) if (sorted.get(i, 2) === noPage) first = i + 1;
    for (; first < i; first++) left.push(page, sorted.get(first, 1), sorted.get(first, 2));
  }
  return left;
}

/** A table of three numbers per row that grows. The first number of a row is a page. */
class Triples {
  length = 0;
  #table = new Float64Array(3 * 64);

  get(row: number, column: 0 | 1 | 2): number {
    return this.#table[3 * row + column] as number;
  }

  set(row: number, column: 0 | 1 | 2, value: number): void {
    this.#table[3 * row + column] = value;
  }

  push(page: number, second: number, third: number): void {
    if (3 * this.length === this.#table.length) {
      const table = new Float64Array(2 * this.#table.length);
      table.set(this.#table);
      this.#table = table;
    }
    const at = 3 * this.length++;
    this.#table[at] = page;
    this.#table[at + 1] = second;
    this.#table[at + 2] = third;
  }

  /** Returns the same rows by page. Rows of a page stay in their order. */
  sorted(): Triples {
    const order = Uint32Array.from({ length: this.length }, (_, i) => i);
    order.sort((a, b) => this.get(a, 0) - this.get(b, 0) || a - b);
    const list = new Triples();
    for (const i of order) list.push(this.get(i, 0), this.get(i, 1), this.get(i, 2));
    return list;
  }

  /** The first of sorted rows whose page is not before `page`. */
  firstFrom(page: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.get(middle, 0) < page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Runs of pages: first page, number of pages, offset. */
class RunList {
  readonly #pageSize: number;
  readonly #rows: Triples;

  constructor(pageSize: number, rows = new Triples()) {
    this.#pageSize = pageSize;
    this.#rows = rows;
  }

  get length(): number {
    return this.#rows.length;
  }

  page(i: number): number {
    return this.#rows.get(i, 0);
  }

  offset(i: number): number {
    return this.#rows.get(i, 2);
  }

  /** The page after a run. */
  endOf(i: number): number {
    return this.#rows.get(i, 0) + this.#rows.get(i, 1);
  }

  /** The offset of a page of a run. */
  placeIn(i: number, page: number): number {
    const offset = this.offset(i);
    return offset < 0 ? offset : offset + (page - this.page(i)) * strideAt(offset, this.#pageSize);
  }

  /** Adds a page, to the last run if it continues that run in the block and in its source. */
  add(page: number, offset: number): void {
    const last = this.length - 1;
    const isNext = last >= 0 && this.endOf(last) === page && this.placeIn(last, page) === offset;
    if (isNext) this.#rows.set(last, 1, this.#rows.get(last, 1) + 1);
    else this.#rows.push(page, 1, offset);
  }

  /** Returns the same runs in the order of their pages. */
  sorted(): RunList {
    return new RunList(this.#pageSize, this.#rows.sorted());
  }

  /** The first of ascending runs that ends after a page. */
  find(page: number): number {
    const next = this.#rows.firstFrom(page + 1);
    return next > 0 && this.endOf(next - 1) > page ? next - 1 : next;
  }
}
