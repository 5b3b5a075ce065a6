/** A content overlaid with changes: each page comes from the changes if they have it, otherwise from the base. */
import { asyncDispose } from '../vm/auto-closed.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState, RamReader } from '../vm/ram-store.ts';
import { NextData } from './next-data.ts';

/** A base, overlaid with the pages that changed since. */
export class OverlayRam implements OpenedRam {
  readonly blocks: readonly RamBlock[];
  readonly #base: RamReader;
  readonly #changes: RamReader;
  /** Two for each content: one for `nextData`, and one for `read`, which lags behind. */
  readonly #nextBase: NextData;
  readonly #nextChange: NextData;
  readonly #readBase: NextData;
  readonly #readChange: NextData;

  /**
   * Both contents have the same blocks. A page that is data in `changes` counts as changed, even if its bytes are zero.
   */
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
    // If all pages have changed, the base is not read.
    if (first !== page || to !== end) await this.#readBasePages(block, page, target);
    while (first < end) {
      const stop = Math.min(to, end);
      await this.#changes.read(block, first, target.subarray((first - page) * pageSize, (stop - page) * pageSize));
      if (stop === end) return;
      ({ first, end: to } = await this.#readChange.find(block, stop, end - stop));
    }
  }

  async #readBasePages(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { first } = await this.#readBase.find(block, page, 1);
    if (first * block.pageSize < page * block.pageSize + target.length) await this.#base.read(block, page, target);
    else target.fill(0);
  }

  willRead(block: RamBlock, first: number, end: number): void {
    this.#base.willRead?.(block, first, end);
    this.#changes.willRead?.(block, first, end);
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

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}
