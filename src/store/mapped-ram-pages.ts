/**
 * Writes the pages of a mapped-ram file from one of several workers. Each page has its own place
 * (docs/formats/mapped-ram.md), so the workers never interfere. One thread has the `MappedRamStore`. It lays out the
 * blocks, is told which pages were written, and writes the bitmaps and everything else.
 */
import type { ByteStore } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { PageSlots } from '../kernel/page-slots.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { PageArea } from './page-area.ts';

/** What became of a run of pages of a block. Plain data that can be sent to another thread. */
export interface WrittenPages {
  /** Index of the block. */
  block: number;
  firstPage: number;
  /** `PageKind.zero` or `.data` for each page; 0 for pages without news. */
  states: Uint8Array;
}

/** Writes pages to their places in a mapped-ram file. Several workers can do so at once. */
export class MappedRamPages {
  readonly #areas: readonly PageArea[];

  /**
   * `file` is the worker's own handle of the store's file. `blocks` are the blocks that the store laid out.
   * @throws RangeError for a block without a place.
   */
  constructor(file: ByteStore, pageSlots: PageSlots, blocks: readonly RamBlock[]) {
    this.#areas = blocks.map((block) => {
      if (block.mapped === undefined) throw new RangeError(`expected a block with a place, got "${block.idstr}"`);
      return new PageArea(file, block, pageSlots, { origin: block.mapped.pagesOffset, erase: false });
    });
  }

  /**
   * Writes the pages of a batch to their places, except zero pages.
   * @throws RangeError for deltas, because another worker may have written the page that they change, and for pages
   *   beyond the block.
   */
  async apply({ index, idstr }: RamBlock, batch: PageBatch): Promise<void> {
    const area = this.#areas[index];
    if (area === undefined) throw new RangeError(`expected a block of the store, got "${idstr}"`);
    if (batch.kind.subarray(0, batch.count).includes(PageKind.delta)) {
      throw new RangeError('expected whole pages: deltas need a store of their own');
    }
    await area.apply(batch);
    await area.eraseStale();
  }

  /**
   * Returns what was applied since the last call, for `MappedRamStore.note`. If several workers write the same page,
   * the store must be told in the order of the writes.
   */
  take(): WrittenPages[] {
    return this.#areas.flatMap(({ block, states }) =>
      states.drain().map(({ first, states }) => ({ block: block.index, firstPage: first, states })),
    );
  }
}
