/** Remembers where the next data of a content is, so that the same holes are never searched twice. */
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** The next data of one content. */
export class NextData {
  readonly #ram: RamReader;
  #block: RamBlock | undefined;
  /** The first data at or after the page `from` is `[first, end)`. */
  #from = 0;
  #first = -1;
  #end = 0;

  constructor(ram: RamReader) {
    this.#ram = ram;
  }

  /** Like `RamReader.nextData`. */
  async find(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    if (block !== this.#block || page < this.#from || page > this.#first) {
      const { first, end } = await this.#ram.nextData(block, page, limit);
      this.#block = block;
      this.#from = page;
      this.#first = first;
      this.#end = end;
    }
    return { first: this.#first, end: Math.min(this.#end, this.#first + limit) };
  }
}
