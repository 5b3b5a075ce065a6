/** Where the next data of a content is, remembered while it is ahead: asking again would search the same holes again. */
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

export class NextData {
  readonly #ram: RamReader;
  #block: RamBlock | undefined;
  /** From the page `from` on the first data is `[first, end)`. */
  #from = 0;
  #first = -1;
  #end = 0;

  constructor(ram: RamReader) {
    this.#ram = ram;
  }

  /** As `RamReader.nextData`. */
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
