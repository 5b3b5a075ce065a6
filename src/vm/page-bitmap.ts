/** A bitmap of dirty pages with one bit per page of a RAM block: bit `page & 7` of byte `page >> 3`. */
import { pageCount, type RamBlock } from './ram-block.ts';

/** A set of pages, one bit per page. */
export class PageBitmap {
  /** Pages of the block. */
  readonly pages: number;
  readonly #words: Uint32Array;
  #count = 0;

  /** Makes an empty set. */
  constructor(block: RamBlock) {
    this.pages = pageCount(block);
    this.#words = new Uint32Array(Math.ceil(this.pages / 32));
  }

  /** How many bits are set. */
  get count(): number {
    return this.#count;
  }

  /** Whether a page is in the set. */
  has(page: number): boolean {
    return (((this.#words[Math.floor(page / 32)] ?? 0) >>> (page & 31)) & 1) === 1;
  }

  /** @throws RangeError for a page beyond the block. */
  set(page: number): void {
    if (!(Number.isInteger(page) && page >= 0 && page < this.pages))
      throw new RangeError(`expected a page below ${this.pages}, got ${page}`);
    if (this.has(page)) return;
    const word = Math.floor(page / 32);
    this.#words[word] = (this.#words[word] as number) | (1 << (page & 31));
    this.#count++;
  }

  /** Removes a page. */
  clear(page: number): void {
    if (!this.has(page)) return;
    const word = Math.floor(page / 32);
    this.#words[word] = (this.#words[word] as number) & ~(1 << (page & 31));
    this.#count--;
  }

  /** Sets all bits. */
  fill(): void {
    this.#words.fill(0xffff_ffff);
    if (this.pages % 32 !== 0) this.#words[this.#words.length - 1] = 2 ** (this.pages % 32) - 1;
    this.#count = this.pages;
  }

  /** The first page from `from` on that is in the set; `pages` if there is none. */
  nextSet(from: number): number {
    for (let word = Math.floor(from / 32), least = from & 31; word < this.#words.length; word++, least = 0) {
      const bits = ((this.#words[word] as number) >>> least) << least;
      if (bits !== 0) return word * 32 + 31 - Math.clz32(bits & -bits);
    }
    return this.pages;
  }

  /** The first page from `from` on that is not in the set; `pages` if there is none. */
  nextClear(from: number): number {
    for (let word = Math.floor(from / 32), least = from & 31; word < this.#words.length; word++, least = 0) {
      const bits = (~(this.#words[word] as number) >>> least) << least;
      if (bits !== 0) return Math.min(this.pages, word * 32 + 31 - Math.clz32(bits & -bits));
    }
    return this.pages;
  }
}
