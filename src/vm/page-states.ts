/**
 * One byte of knowledge per page of a RAM block, kept only for the parts that were touched:
 * the memory a reader needs grows with the guest it was really sent, not with what a header claims.
 */
const chunkPages = 4096;

/** State of a page whose content was discarded at the switchover to postcopy, and has not come again. */
export const discardedState = 0xff;

export class PageStates {
  readonly #chunks = new Map<number, Uint8Array>();
  #number = -1;
  #chunk: Uint8Array | undefined;

  /** The state of a page; 0 if it was never set. */
  get(page: number): number {
    return this.#at(Math.floor(page / chunkPages))?.[page % chunkPages] ?? 0;
  }

  set(page: number, state: number): void {
    const number = Math.floor(page / chunkPages);
    let chunk = this.#at(number);
    if (chunk === undefined) {
      chunk = new Uint8Array(chunkPages);
      this.#chunks.set(number, chunk);
      this.#chunk = chunk;
    }
    chunk[page % chunkPages] = state;
  }

  /** The states of up to `chunkPages` pages around `page`, or undefined if none of them was ever set. */
  #at(number: number): Uint8Array | undefined {
    if (number !== this.#number) {
      this.#number = number;
      this.#chunk = this.#chunks.get(number);
    }
    return this.#chunk;
  }

  /** The first page from `from` on, below `end`, that has a state other than 0; `end` if there is none. */
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

  /** Gives `state` to those pages of `[first, end)` that have one other than 0. */
  replace(first: number, end: number, state: number): void {
    for (let page = this.nextSet(first, end); page < end; page = this.nextSet(page + 1, end)) this.set(page, state);
  }

  /** The first page with this state; undefined if there is none. */
  find(state: number): number | undefined {
    let first: number | undefined;
    for (const [number, chunk] of this.#chunks) {
      const at = chunk.indexOf(state);
      if (at === -1) continue;
      first = Math.min(first ?? Number.POSITIVE_INFINITY, number * chunkPages + at);
    }
    return first;
  }

  /** How many pages have each state, for states 1 to `states` - 1; index 0 stays 0. */
  count(states: number): number[] {
    const counts = new Array<number>(states).fill(0);
    for (const chunk of this.#chunks.values()) {
      for (const state of chunk) if (state !== 0) counts[state] = (counts[state] ?? 0) + 1;
    }
    return counts;
  }
}
