/**
 * extract: RAM blocks as raw images, each page at its own offset. The Flow is settled into the outputs themselves. Zero
 * pages, and pages that were never sent, stay holes.
 */
import { type Abortable, abortableStore } from '../../io/abort.ts';
import type { ByteStore } from '../../io/byte-source.ts';
import type { PageSlots } from '../../kernel/page-slots.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import type { FlowSink } from '../../store/flow-sink.ts';
import { lostPage } from '../../store/mapped-ram-store.ts';
import { PageArea } from '../../store/page-area.ts';
import { settle } from '../../store/settle.ts';
import type { FlowItem } from '../../vm/flow.ts';
import { tallyPages } from '../../vm/page-states.ts';
import type { RamBlock } from '../../vm/ram-block.ts';

/** A block that was extracted. */
export interface ExtractedBlock {
  idstr: string;
  /** Bytes of the image. */
  length: number;
  /** Bytes of pages with data; the rest are holes. */
  dataBytes: number;
  /** Pages that were never sent. A mapped-ram file does not distinguish them from zero pages. */
  absentPages: number;
  /** Shared memory that the migration left out (x-ignore-shared): the image is not the block's content. */
  ignored?: true;
}

/** Returns the store for a block's image, or undefined to skip the block. */
export type ChooseOutput = (block: RamBlock) => ByteStore | undefined | Promise<ByteStore | undefined>;

/**
 * Writes raw images of the blocks for which `output` returns a store. The stores are complete when this resolves; the
 * caller syncs and closes them. `endBlocks` is called when all blocks are known, before the work on their pages. It may
 * throw to end that work.
 * @throws MigrationError if the file is bad. Discard the outputs in that case.
 */
export async function extractBlocks(
  file: MigrationFile,
  output: ChooseOutput,
  endBlocks?: (blocks: readonly RamBlock[]) => void,
  options: Abortable = {},
): Promise<ExtractedBlock[]> {
  const given: ByteStore[] = [];
  const take = async (block: RamBlock) => {
    const store = await output(block);
    if (store !== undefined) given.push(store);
    return store && abortableStore(store, options.signal);
  };
  try {
    return await whileAllowed(options, [file], () => extractImages(file, take, endBlocks));
  } catch (error) {
    // A raw image does not show whether it is complete.
    if (options.signal?.aborted === true) for (const store of given) await store.truncate(0);
    throw error;
  }
}

async function extractImages(
  file: MigrationFile,
  output: (block: RamBlock) => ByteStore | undefined | Promise<ByteStore | undefined>,
  endBlocks?: (blocks: readonly RamBlock[]) => void,
): Promise<ExtractedBlock[]> {
  const images = new RawImages(file.pageSlots, output);
  const { ignored } = await settle(file, images, endBlocks === undefined ? {} : { endBlocks });
  const left = new Set(ignored.map(({ index }) => index));
  const extracted: ExtractedBlock[] = [];
  for (const { area, store } of images.list()) {
    const { block, states } = area;
    await store.truncate(block.usedLength);
    const { dataPages, absentPages } = tallyPages(block, states);
    extracted.push({
      idstr: block.idstr,
      length: block.usedLength,
      dataBytes: dataPages * block.pageSize,
      absentPages,
      ...(left.has(block.index) ? { ignored: true } : {}),
    });
  }
  return extracted;
}

interface RawImage {
  area: PageArea;
  store: ByteStore;
}

/** The images of some blocks, each in its own store. */
class RawImages implements FlowSink {
  readonly #pageSlots: PageSlots;
  readonly #output: ChooseOutput;
  /** By the index of the block. */
  readonly #images = new Map<number, RawImage>();

  constructor(pageSlots: PageSlots, output: ChooseOutput) {
    this.#pageSlots = pageSlots;
    this.#output = output;
  }

  take(item: FlowItem): Promise<void> | void {
    if (item.kind === 'block') return this.#addBlock(item.block);
    if (item.kind === 'pages') return this.#images.get(item.block.index)?.area.apply(item.batch);
    if (item.kind === 'discard') this.#images.get(item.block.index)?.area.discard(item.firstPage, item.pages);
  }

  list(): Iterable<RawImage> {
    return this.#images.values();
  }

  lostPage(): { block: RamBlock; page: number } | undefined {
    return lostPage([...this.list()].map(({ area }) => area));
  }

  async #addBlock(block: RamBlock): Promise<void> {
    const store = await this.#output(block);
    if (store === undefined) return;
    this.#images.set(block.index, {
      store,
      area: new PageArea(store, block, this.#pageSlots, { origin: 0, erase: true }),
    });
  }
}
