/**
 * extract: RAM blocks as raw images, each page at its own offset. The Flow is settled into the outputs themselves. Zero
 * pages, and pages that were never sent, stay holes.
 */
import { type Abortable, abortableStore } from '../../io/abort.ts';
import type { ByteStore } from '../../io/byte-source.ts';
import type { PageSlots } from '../../kernel/page-slots.ts';
import { FindingLog } from '../../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { planContent } from '../../store/content-plan.ts';
import type { FlowSink } from '../../store/flow-sink.ts';
import { lostPage } from '../../store/mapped-ram-store.ts';
import { findMissing, type MissingPages, type MissingRam } from '../../store/missing-ram.ts';
import { PageArea } from '../../store/page-area.ts';
import { openSavedVm, type RamContentOptions, readContent } from '../../store/ram-content.ts';
import { settle } from '../../store/settle.ts';
import { noScratch } from '../../store/vm-reading.ts';
import type { FlowItem } from '../../vm/flow.ts';
import type { Finding } from '../../vm/migration-error.ts';
import { type PageRun, type PageTally, tallyPages } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';

/** A block that was extracted. */
export interface ExtractedBlock {
  idstr: string;
  /** Bytes of the image. */
  length: number;
  /** Bytes of pages with data; the rest are holes. */
  dataBytes: number;
  /** Pages that were never sent. A mapped-ram file does not distinguish them from zero pages. */
  absentPages: number;
  /** With `partial`: the pages that the file lacks, as holes in the image. Undefined if it lacks none. */
  missing?: MissingPages;
}

/** How blocks are extracted. */
export interface ExtractBlocksOptions extends Abortable, Pick<RamContentOptions, 'noteMissing'> {
  /**
   * Accept a file that is incomplete or damaged, and write what it has. What is missing stays holes, see
   * {@link ExtractedBlock}. Default false.
   */
  partial?: boolean;
}

/** Returns the store for a block's image, or undefined to skip the block. */
export type ChooseOutput = (block: RamBlock) => ByteStore | undefined | Promise<ByteStore | undefined>;

/**
 * Writes raw images of the blocks for which `output` returns a store. The stores are complete when this resolves; the
 * caller syncs and closes them. `endBlocks` is called when all blocks are known, before the work on their pages. It may
 * throw to end that work.
 * @throws MigrationError if the file is bad, or lacks memory. Discard the outputs in that case.
 */
export async function extractBlocks(
  file: MigrationFile,
  output: ChooseOutput,
  endBlocks?: (blocks: readonly RamBlock[]) => void,
  options: ExtractBlocksOptions = {},
): Promise<ExtractedBlock[]> {
  const given: ByteStore[] = [];
  const take = async (block: RamBlock) => {
    const store = await output(block);
    if (store !== undefined) given.push(store);
    return store && abortableStore(store, options.signal);
  };
  try {
    return await whileAllowed(options, [file], () => extractImages(file, take, endBlocks, options));
  } catch (error) {
    // A raw image does not show whether it is complete.
    if (options.signal?.aborted === true) for (const store of given) await store.truncate(0);
    throw error;
  }
}

async function extractImages(
  file: MigrationFile,
  output: (block: RamBlock) => ByteStore | undefined | Promise<ByteStore | undefined>,
  endBlocks: ((blocks: readonly RamBlock[]) => void) | undefined,
  { partial = false, noteMissing }: ExtractBlocksOptions,
): Promise<ExtractedBlock[]> {
  // Of a partial mapped-ram file, the pages are read from their places: the rest of it may be unreadable.
  if (partial && planContent(file).how === 'in-place') return copyImages(file, output, endBlocks, noteMissing);
  const lost = new FindingLog();
  const images = new RawImages(file.pageSlots, output, partial ? (finding) => lost.add(finding) : undefined);
  const needs = (block: RamBlock) => images.has(block);
  const settled = await settle(file, images, { partial, needs, ...(endBlocks === undefined ? {} : { endBlocks }) });
  const gaps = [...settled.gaps, ...lost.list()];
  const missing = await findMissing(images, gaps, settled.ignored, needs);
  if (missing !== undefined) noteMissing?.(missing);
  const extracted: ExtractedBlock[] = [];
  for (const { area, store } of images.list()) {
    const { block, states } = area;
    if (missing !== undefined) await area.eraseStale();
    await store.truncate(block.usedLength);
    extracted.push(describeImage(block, tallyPages(block, states), missing));
  }
  return extracted;
}

/** Says what an image has of a block. */
export function describeImage(
  block: RamBlock,
  { dataPages, absentPages }: Pick<PageTally, 'dataPages' | 'absentPages'>,
  missing: MissingRam | undefined,
): ExtractedBlock {
  const lacks = missing?.blocks.find((each) => each.block === block.idstr);
  return {
    idstr: block.idstr,
    length: block.usedLength,
    dataBytes: dataPages * block.pageSize,
    absentPages,
    ...(lacks === undefined ? {} : { missing: lacks }),
  };
}

/** Copies the blocks of a partial mapped-ram file. */
async function copyImages(
  file: MigrationFile,
  output: ChooseOutput,
  endBlocks: ((blocks: readonly RamBlock[]) => void) | undefined,
  noteMissing: ExtractBlocksOptions['noteMissing'],
): Promise<ExtractedBlock[]> {
  const { ram, missing } = await openSavedVm(file, {
    makeScratch: noScratch,
    partial: true,
    ...(endBlocks === undefined ? {} : { endBlocks }),
    ...(noteMissing === undefined ? {} : { noteMissing }),
  });
  try {
    const extracted: ExtractedBlock[] = [];
    for (const block of ram.blocks) {
      const store = await output(block);
      if (store === undefined) continue;
      let at = 0;
      let dataBytes = 0;
      for await (const { length, bytes } of readContent(ram, block)) {
        if (bytes !== undefined) {
          await store.write(bytes, at);
          dataBytes += length;
        }
        at += length;
      }
      await store.truncate(block.usedLength);
      extracted.push(describeImage(block, { dataPages: dataBytes / block.pageSize, absentPages: 0 }, missing));
    }
    return extracted;
  } finally {
    await ram.close();
  }
}

interface RawImage {
  area: PageArea;
  store: ByteStore;
}

/** The images of some blocks, each in its own store. */
class RawImages implements FlowSink {
  readonly #pageSlots: PageSlots;
  readonly #output: ChooseOutput;
  readonly #noteLost: ((finding: Finding) => void) | undefined;
  readonly blocks: RamBlock[] = [];
  /** By the index of the block. */
  readonly #images = new Map<number, RawImage>();

  constructor(pageSlots: PageSlots, output: ChooseOutput, noteLost: ((finding: Finding) => void) | undefined) {
    this.#pageSlots = pageSlots;
    this.#output = output;
    this.#noteLost = noteLost;
  }

  has({ index }: RamBlock): boolean {
    return this.#images.has(index);
  }

  absentRuns({ index }: RamBlock): Iterable<PageRun> {
    const area = this.#images.get(index)?.area;
    return area === undefined ? [] : area.states.absentRuns(pageCount(area.block));
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

  absentPages({ index }: RamBlock): number | undefined {
    const area = this.#images.get(index)?.area;
    return area === undefined ? undefined : tallyPages(area.block, area.states).absentPages;
  }

  async #addBlock(block: RamBlock): Promise<void> {
    const store = await this.#output(block);
    if (store === undefined) return;
    this.blocks.push(block);
    const options = { origin: 0, erase: true, noteLost: this.#noteLost };
    this.#images.set(block.index, { store, area: new PageArea(store, block, this.#pageSlots, options) });
  }
}
