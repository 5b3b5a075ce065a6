/**
 * extract: RAM blocks as raw images, each page at its own offset. The Flow is settled right into the outputs: pages
 * never sent, and zero pages, are left as holes.
 */
import type { ByteStore } from '../../io/byte-source.ts';
import type { MigrationFile } from '../../read/open.ts';
import { lostPage } from '../../store/mapped-ram-store.ts';
import { PageArea } from '../../store/page-area.ts';
import { settle } from '../../store/settle.ts';
import { tallyPages } from '../../vm/page-states.ts';
import type { RamBlock } from '../../vm/ram-block.ts';

/** A block that was extracted. */
export interface ExtractedBlock {
  idstr: string;
  /** Bytes of the image. */
  length: number;
  /** Bytes of it that are pages with data; the rest are holes. */
  dataBytes: number;
  /** Pages that were never sent; in a mapped-ram file they cannot be told from zero pages. */
  absentPages: number;
  /** Shared memory that the migration left out (x-ignore-shared): the image is not the block's content. */
  ignored?: true;
}

/**
 * Writes raw images of the blocks for which `output` gives a store; others are skipped.
 * The stores are complete when this resolves; closing and syncing them is the caller's.
 * `endBlocks` is called when all blocks are known, before the work on their pages: it may throw to end it.
 * @throws MigrationError if the file is bad: then the outputs are not to be kept.
 */
export async function extractBlocks(
  file: MigrationFile,
  output: (block: RamBlock) => ByteStore | undefined | Promise<ByteStore | undefined>,
  endBlocks?: (blocks: readonly RamBlock[]) => void,
): Promise<ExtractedBlock[]> {
  const areas = new Map<number, PageArea>();
  const stores = new Map<number, ByteStore>();
  const { ignored } = await settle(file, {
    async addBlock(block) {
      const store = await output(block);
      if (store === undefined) return;
      stores.set(block.index, store);
      areas.set(block.index, new PageArea(store, block, file.pageSlots, { origin: 0, erase: true }));
    },
    ...(endBlocks === undefined ? {} : { endBlocks }),
    apply: (block, batch) => areas.get(block.index)?.apply(batch),
    discard: (block, firstPage, pages) => areas.get(block.index)?.discard(firstPage, pages),
    lostPage: () => lostPage(areas.values()),
  });
  const extracted: ExtractedBlock[] = [];
  for (const [index, area] of areas) {
    const { block, states } = area;
    await stores.get(index)?.truncate(block.usedLength);
    const { dataPages, absentPages } = tallyPages(block, states);
    extracted.push({
      idstr: block.idstr,
      length: block.usedLength,
      dataBytes: dataPages * block.pageSize,
      absentPages,
      ...(ignored.some((each) => each.index === index) ? { ignored: true } : {}),
    });
  }
  return extracted;
}
