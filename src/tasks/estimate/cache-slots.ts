/**
 * The size that XBZRLE's cache needs for a set of pages. The cache is direct-mapped (docs/formats/xbzrle.md, "The page cache"):
 * the low bits of a page's number in QEMU's RAM address space choose its slot, and pages that share a slot evict each
 * other.
 */

/** Pages of RAM as bits, one block after the other. */
export class PageSet {
  /** A power of two, at least 32 pages. */
  readonly #words: Uint32Array;

  constructor(pages: number) {
    this.#words = new Uint32Array(2 ** Math.max(0, Math.ceil(Math.log2(Math.max(1, pages) / 32))));
  }

  add(page: number): void {
    this.#words[page >>> 5]! |= 1 << (page & 31);
  }

  has(page: number): boolean {
    return (((this.#words[page >>> 5] as number) >>> (page & 31)) & 1) === 1;
  }

  get size(): number {
    return countBits(this.#words);
  }

  /**
   * How many pages have a slot of their own: one entry for each power of two from 32 slots up to a slot for every page of
   * RAM.
   */
  aloneBySlots(): { slots: number; alone: number }[] {
    // Slots with exactly one page, and slots with more.
    let one = this.#words;
    let more = new Uint32Array(one.length);
    const found = [{ slots: one.length * 32, alone: countBits(one) }];
    while (one.length > 1) {
      const half = one.length / 2;
      const nextOne = new Uint32Array(half);
      const nextMore = new Uint32Array(half);
      for (let i = 0; i < half; i++) {
        const [a, b] = [one[i] as number, one[i + half] as number];
        const crowded = (more[i] as number) | (more[i + half] as number) | (a & b);
        nextMore[i] = crowded;
        nextOne[i] = (a | b) & ~crowded;
      }
      one = nextOne;
      more = nextMore;
      found.unshift({ slots: half * 32, alone: countBits(one) });
    }
    return found;
  }
}

function countBits(words: Uint32Array): number {
  let count = 0;
  for (let word of words) {
    word -= (word >>> 1) & 0x55555555;
    word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
    count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }
  return count;
}
