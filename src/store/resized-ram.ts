/** A content with the blocks of another VM. Blocks are matched by name, and cut off or extended with zeros. */
import { asyncDispose } from '../vm/auto-closed.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState, RamReader } from '../vm/ram-store.ts';

/** A content, resized to other blocks. */
export class ResizedRam implements OpenedRam {
  readonly blocks: readonly RamBlock[];
  readonly #ram: RamReader;
  /** For each block in `blocks`: the block of the content, and how many pages both have. */
  readonly #own: readonly { block: RamBlock | undefined; pages: number }[];

  /** @throws RangeError for blocks of one name with different page sizes */
  constructor(ram: RamReader, blocks: readonly RamBlock[]) {
    this.#ram = ram;
    this.blocks = blocks;
    const byName = new Map(ram.blocks.map((block) => [block.idstr, block]));
    this.#own = blocks.map((wanted) => {
      const block = byName.get(wanted.idstr);
      if (block !== undefined && block.pageSize !== wanted.pageSize) {
        const sizes = `pages of ${wanted.pageSize} bytes in "${wanted.idstr}" of the base, got ${block.pageSize}`;
        throw new RangeError(`expected ${sizes}`);
      }
      return { block, pages: block === undefined ? 0 : Math.min(pageCount(block), pageCount(wanted)) };
    });
  }

  state({ index }: RamBlock, page: number): PageState | Promise<PageState> {
    const { block, pages } = this.#ownOf(index);
    return block === undefined || page >= pages ? 'zero' : this.#ram.state(block, page);
  }

  async read({ index, pageSize }: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { block, pages } = this.#ownOf(index);
    const own = Math.max(0, Math.min(target.length, (pages - page) * pageSize));
    if (block !== undefined && own > 0) await this.#ram.read(block, page, target.subarray(0, own));
    target.fill(0, own);
  }

  willRead({ index }: RamBlock, first: number, end: number): void {
    const { block, pages } = this.#ownOf(index);
    if (block !== undefined) this.#ram.willRead?.(block, first, Math.min(end, pages));
  }

  async nextData(wanted: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const { block, pages } = this.#ownOf(wanted.index);
    const none = { first: pageCount(wanted), end: pageCount(wanted) };
    if (block === undefined || page >= pages) return none;
    const { first, end } = await this.#ram.nextData(block, page, limit);
    return first >= pages ? none : { first, end: Math.min(end, pages) };
  }

  async close(): Promise<void> {
    await this.#ram.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  #ownOf(index: number): { block: RamBlock | undefined; pages: number } {
    return this.#own[index] as { block: RamBlock | undefined; pages: number };
  }
}
