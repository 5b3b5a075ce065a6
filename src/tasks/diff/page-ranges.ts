/** Pages as ranges: exact while there are few, then merged with the pages between near ranges. */

/** `count` pages from `first` on; `changed` of them were added, which is all of them in an exact range. */
export interface PageRange {
  first: number;
  count: number;
  changed: number;
}

/** Collects pages into ranges. */
export class PageRanges {
  readonly #most: number;
  #ranges: PageRange[] = [];
  /** Ranges with at most this many pages between them are merged. */
  #gap = 0;

  /** Keeps at most `most` ranges. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Whether the ranges hold no other pages than those that were added. */
  get isExact(): boolean {
    return this.#gap === 0;
  }

  list(): PageRange[] {
    while (this.#ranges.length > this.#most) this.#merge();
    return this.#ranges;
  }

  /** Adds a page; pages come in ascending order. */
  add(page: number): void {
    const last = this.#ranges.at(-1);
    if (last !== undefined && page - (last.first + last.count) <= this.#gap) {
      last.count = page + 1 - last.first;
      last.changed++;
      return;
    }
    this.#ranges.push({ first: page, count: 1, changed: 1 });
    // Room for as many again, so that merging is rare.
    if (this.#ranges.length > 2 * this.#most) this.#merge();
  }

  #merge(): void {
    this.#gap = Math.max(1, 2 * this.#gap);
    const merged: PageRange[] = [];
    for (const range of this.#ranges) {
      const last = merged.at(-1);
      if (last !== undefined && range.first - (last.first + last.count) <= this.#gap) {
        last.count = range.first + range.count - last.first;
        last.changed += range.changed;
      } else merged.push(range);
    }
    this.#ranges = merged;
  }
}
