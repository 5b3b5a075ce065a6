/**
 * One state byte per page of a RAM block, kept only for the parts that were touched. So the memory that a reader needs
 * grows with the pages that were sent, not with the size that a header claims.
 */
import { PageKind } from '../kernel/page-batch.ts';
import { pageCount, type RamBlock } from './ram-block.ts';

const chunkPages = 4096;

/** State of a page that was discarded at the switchover to postcopy and has not been sent again. */
export const discardedState = 0xff;

/** Chunks `[from, to)` whose pages all have the same state. */
interface Fill {
  from: number;
  to: number;
  state: number;
}

/** Pages `[first, end)`. */
export interface PageRun {
  first: number;
  end: number;
}

/** Pages `[first, end)` and their states. */
export interface StatesPiece {
  first: number;
  end: number;
  states: Uint8Array | undefined;
  state: number;
}

/** The states of a block's pages, one byte per page. */
export class PageStates {
  readonly #chunks = new Map<number, Uint8Array>();
  /** Ascending runs of whole chunks. */
  readonly #fills: Fill[] = [];
  #number = -1;
  #chunk: Uint8Array | undefined;

  /** The state of a page; 0 if it was never set. */
  get(page: number): number {
    const number = Math.floor(page / chunkPages);
    return this.#at(number)?.[page % chunkPages] ?? this.#filled(number);
  }

  /** Sets the state of a page. */
  set(page: number, state: number): void {
    this.#touch(Math.floor(page / chunkPages))[page % chunkPages] = state;
  }

  /** Sets the state of `count` pages from `first` on, in any order of calls. */
  setRun(first: number, count: number, state: number): void {
    const end = first + count;
    for (let page = first; page < end; ) {
      const number = Math.floor(page / chunkPages);
      const stop = Math.min(end, (number + 1) * chunkPages);
      const at = page % chunkPages;
      this.#touch(number).fill(state, at, at + stop - page);
      page = stop;
    }
  }

  /** The states of a chunk, which can be set. */
  #touch(number: number): Uint8Array {
    const known = this.#at(number);
    if (known !== undefined) return known;
    const chunk = new Uint8Array(chunkPages).fill(this.#filled(number));
    this.#chunks.set(number, chunk);
    this.#chunk = chunk;
    return chunk;
  }

  /** The states of up to `chunkPages` pages around `page`. Undefined if none of them was ever set. */
  #at(number: number): Uint8Array | undefined {
    if (number !== this.#number) {
      this.#number = number;
      this.#chunk = this.#chunks.get(number);
    }
    return this.#chunk;
  }

  /** The first page in `[from, end)` whose state is not 0; `end` if there is none. */
  nextSet(from: number, end: number): number {
    let page = from;
    while (page < end) {
      const chunk = this.#at(Math.floor(page / chunkPages));
      const stop = Math.min(end, (Math.floor(page / chunkPages) + 1) * chunkPages);
      if (chunk === undefined) {
        page = stop;
        continue;
      }
      for (; page < stop; page++) if (chunk[page % chunkPages] !== 0) return page;
    }
    return end;
  }

  /**
   * Sets the state of all pages of `[first, end)`. Calls must come in ascending order. Whole chunks are only noted:
   * they take no memory until one of their pages is set, and {@link nextSet} skips them.
   */
  fill(first: number, end: number, state: number): void {
    const from = Math.ceil(first / chunkPages);
    const to = Math.floor(end / chunkPages);
    for (let page = first; page < Math.min(end, from * chunkPages); page++) this.set(page, state);
    for (let page = Math.max(first, to * chunkPages, from * chunkPages); page < end; page++) this.set(page, state);
    if (to <= from) return;
    const isFilled = (number: number) => number >= from && number < to;
    if (to - from < this.#chunks.size)
      for (let number = from; number < to; number++) this.#chunks.get(number)?.fill(state);
    else for (const [number, chunk] of this.#chunks) if (isFilled(number)) chunk.fill(state);
    const last = this.#fills.at(-1);
    if (last?.to === from && last.state === state) last.to = to;
    else this.#fills.push({ from, to, state });
  }

  /** Returns what {@link set} stored, in pieces of whole chunks, and clears it. */
  drain(): { first: number; states: Uint8Array }[] {
    const pieces = [...this.#chunks].map(([number, states]) => ({ first: number * chunkPages, states }));
    this.#chunks.clear();
    this.#number = -1;
    return pieces;
  }

  /** The state that `fill` gave to a chunk without a table of its own. */
  #filled(number: number): number {
    let low = 0;
    let high = this.#fills.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#fills[middle] as Fill).to <= number) low = middle + 1;
      else high = middle;
    }
    const fill = this.#fills[low];
    return fill !== undefined && fill.from <= number ? fill.state : 0;
  }

  /** Iterates over all pages of `[from, end)` in pieces: their states, or undefined if the whole piece has `state`. */
  *pieces(from: number, end: number): Generator<StatesPiece, void> {
    for (let page = from; page < end; ) {
      const number = Math.floor(page / chunkPages);
      const stop = Math.min(end, (number + 1) * chunkPages);
      const chunk = this.#chunks.get(number);
      const at = page % chunkPages;
      const states = chunk?.subarray(at, at + stop - page);
      yield { first: page, end: stop, states, state: states === undefined ? this.#filled(number) : 0 };
      page = stop;
    }
  }

  /** The runs of pages below `pages` that are absent, or were discarded and not sent again. */
  *absentRuns(pages: number): Generator<PageRun, void> {
    let run: PageRun | undefined;
    const isGone = (state: number) => state === PageKind.absent || state === discardedState;
    for (const { first, end, states, state } of this.pieces(0, pages)) {
      for (let page = first; page < end; ) {
        const gone = isGone(states === undefined ? state : (states[page - first] as number));
        const next = states === undefined ? end : page + 1;
        if (!gone && run !== undefined) {
          yield run;
          run = undefined;
        } else if (gone && run !== undefined) run.end = next;
        else if (gone) run = { first: page, end: next };
        page = next;
      }
    }
    if (run !== undefined) yield run;
  }

  /** The first page with this state; undefined if there is none. */
  find(state: number): number | undefined {
    let first = Number.POSITIVE_INFINITY;
    for (const [number, chunk] of this.#chunks) {
      const at = chunk.indexOf(state);
      if (at !== -1) first = Math.min(first, number * chunkPages + at);
    }
    for (const fill of this.#fills) {
      let number = fill.from;
      while (number < fill.to && this.#chunks.has(number)) number++;
      if (fill.state === state && number < fill.to) first = Math.min(first, number * chunkPages);
    }
    return Number.isFinite(first) ? first : undefined;
  }

  /** How many pages have each state, for states 1 to `states` - 1; index 0 stays 0. */
  count(states: number): number[] {
    const counts = new Array<number>(states).fill(0);
    for (const chunk of this.#chunks.values()) {
      for (const state of chunk) if (state !== 0) counts[state] = (counts[state] ?? 0) + 1;
    }
    for (const { from, to, state } of this.#fills) counts[state] = (counts[state] ?? 0) + (to - from) * chunkPages;
    if (this.#fills.length === 0) return counts;
    for (const number of this.#chunks.keys()) {
      const state = this.#filled(number);
      if (state !== 0) counts[state] = (counts[state] as number) - chunkPages;
    }
    return counts;
  }
}

/** How many pages of a block have each state. */
export interface PageTally {
  dataPages: number;
  zeroPages: number;
  absentPages: number;
}

export function tallyPages(block: RamBlock, states: PageStates): PageTally {
  const counts = states.count(Object.keys(PageKind).length);
  const [dataPages, zeroPages] = [counts[PageKind.data] ?? 0, counts[PageKind.zero] ?? 0];
  return { dataPages, zeroPages, absentPages: pageCount(block) - dataPages - zeroPages };
}
