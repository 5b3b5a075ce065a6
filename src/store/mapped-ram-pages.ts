/**
 * The pages of a mapped-ram file, for one of several workers that write them: each page has its place
 * (docs/formats/mapped-ram.md), so workers need not meet. One thread has the `MappedRamStore`: it lays the blocks out, is
 * told which pages were written, and writes the bitmaps and all else.
 */
import type { ByteStore } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { PageSlots } from '../kernel/page-slots.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { requireRecords } from '../wire/require-vm.ts';
import { PageArea } from './page-area.ts';

/** What a run of pages of a block became. Plain data: it can be sent to another thread. */
export interface WrittenPages {
  /** Index of the block. */
  block: number;
  firstPage: number;
  /** `PageKind.zero` or `.data` for each page; 0 for one that nothing is said of. */
  states: Uint8Array;
}

/** Writes pages to their places in a mapped-ram file. Several workers can do that at once. */
export class MappedRamPages {
  readonly #areas: readonly PageArea[];

  /**
   * `file` is the worker's own, open on the file of the store; `blocks` are those that the store laid out.
   * @throws RangeError for a block without a place.
   */
  constructor(file: ByteStore, pageSlots: PageSlots, blocks: readonly RamBlock[]) {
    this.#areas = blocks.map((block) => {
      if (block.mapped === undefined) throw new RangeError(`expected a block with a place, got "${block.idstr}"`);
      return new PageArea(file, block, pageSlots, { origin: block.mapped.pagesOffset, erase: false });
    });
  }

  /**
   * Writes the pages of a batch to their places, zero pages excepted.
   * @throws RangeError for deltas: what they change may be another worker's; and for pages that the block does not have.
   */
  async apply({ index, idstr }: RamBlock, batch: PageBatch): Promise<void> {
    const area = this.#areas[index];
    if (area === undefined) throw new RangeError(`expected a block of the store, got "${idstr}"`);
    if (batch.kind.subarray(0, batch.count).includes(PageKind.delta)) {
      throw new RangeError('expected whole pages: deltas need a store of their own');
    }
    requireRecords(area.block, batch);
    await area.apply(batch);
  }

  /**
   * What was applied since this was last asked, for `MappedRamStore.note`. If a page is written more than once, by
   * several workers, the store must be told in the order in which that happened.
   */
  take(): WrittenPages[] {
    return this.#areas.flatMap(({ block, states }) =>
      states.drain().map(({ first, states }) => ({ block: block.index, firstPage: first, states })),
    );
  }
}
