/** Pages as ranges: exact as long as they are few enough, then with what lies between those that are near each other. */

/** Pages from `first` on, `count` of them, of which `changed` are meant: all of them where the range is exact. */
export interface PageRange {
  first: number;
  count: number;
  changed: number;
}

export class PageRanges {
  readonly #most: number;
  #ranges: PageRange[] = [];
  /** Ranges with at most so many pages between them are one. */
  #gap = 0;

  /** Keeps at most `most` ranges. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Whether every page of every range is meant. */
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
