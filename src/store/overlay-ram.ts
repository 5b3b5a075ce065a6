/** A content with changes laid over it: each page is as the changes have it, or else as it was. */
import type { RamBlock } from '../vm/ram-block.ts';
import type { PageState, RamReader } from '../vm/ram-store.ts';
import { NextData } from './next-data.ts';

export class OverlayRam implements RamReader {
  readonly blocks: readonly RamBlock[];
  readonly #base: RamReader;
  readonly #changes: RamReader;
  /** For those who ask where data is, and for reading, which lags behind. */
  readonly #nextBase: NextData;
  readonly #nextChange: NextData;
  readonly #readBase: NextData;
  readonly #readChange: NextData;

  /** Both have the same blocks. What `changes` has as data are the changes, whether it is zero or not. */
  constructor(base: RamReader, changes: RamReader) {
    this.#base = base;
    this.#changes = changes;
    this.blocks = changes.blocks;
    this.#nextBase = new NextData(base);
    this.#nextChange = new NextData(changes);
    this.#readBase = new NextData(base);
    this.#readChange = new NextData(changes);
  }

  async state(block: RamBlock, page: number): Promise<PageState> {
    return (await this.#changes.state(block, page)) === 'data' ? 'data' : this.#base.state(block, page);
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { pageSize } = block;
    const end = page + target.length / pageSize;
    let { first, end: to } = await this.#readChange.find(block, page, end - page);
    // What is changed as a whole need not be read as it was.
    if (first !== page || to !== end) await this.#readAsItWas(block, page, target);
    while (first < end) {
      const stop = Math.min(to, end);
      await this.#changes.read(block, first, target.subarray((first - page) * pageSize, (stop - page) * pageSize));
      if (stop === end) return;
      ({ first, end: to } = await this.#readChange.find(block, stop, end - stop));
    }
  }

  async #readAsItWas(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { first } = await this.#readBase.find(block, page, 1);
    if (first * block.pageSize < page * block.pageSize + target.length) await this.#base.read(block, page, target);
    else target.fill(0);
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const base = await this.#nextBase.find(block, page, limit);
    const change = await this.#nextChange.find(block, page, limit);
    if (base.first !== change.first) return base.first < change.first ? base : change;
    return base.end > change.end ? base : change;
  }

  async close(): Promise<void> {
    await this.#base.close();
    await this.#changes.close();
  }
}
