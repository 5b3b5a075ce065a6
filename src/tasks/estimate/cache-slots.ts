/**
 * The cache of XBZRLE from the outside: how large it has to be for a set of pages. It is direct-mapped (docs/formats/
 * xbzrle.md, "The page cache"): a page has one slot, by the low bits of its number in QEMU's address space of RAM, and pages
 * that share a slot drive each other out.
 */

/** One bit for each page of RAM, blocks one behind the other. */
export class PageSet {
  /** A power of two of pages, 32 at least. */
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
   * How many pages have a slot of their own, for each number of slots from `2^5` up to one for each page of RAM: the first
   * is that of 32 slots.
   */
  aloneBySlots(): { slots: number; alone: number }[] {
    // Slots with one page, and with more.
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
