/**
 * Reads a file as a SavedVm: a sink that takes a Flow, and gives the VM when the Flow has ended. Other sinks can take the same
 * Flow, so that the file is read once. `content-plan.ts` decides how RAM is kept: a mapped-ram file stays where it is, a stream
 * gets an index (`stream-index.ts`), and everything else goes to a scratch file. If an index turns out to be impossible, its pages
 * move to a scratch file, and the reading goes on.
 */
import type { Abortable } from '../io/abort.ts';
import { type ByteStore, placeIn } from '../io/byte-source.ts';
import type { FlowOptions, MigrationFile } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { type ContentPlan, planContent } from './content-plan.ts';
import { type FlowSink, onlyPages } from './flow-sink.ts';
import { MappedRamReader, MappedRamStore } from './mapped-ram-store.ts';
import { type SettleOptions, Settler } from './settle.ts';
import { NotIndexable, StreamIndex } from './stream-index.ts';

/** Bytes moved to a scratch file at a time. */
const pieceBytes = 1 << 20;

/** How the content of a file is opened. */
export interface RamContentOptions extends Pick<SettleOptions, 'endBlocks'>, Abortable {
  /** Makes the scratch file, if one is needed. Closing the content closes it. */
  makeScratch: () => ByteStore | Promise<ByteStore>;
  /** Selects the blocks whose content is needed. Default: all. */
  only?: (block: RamBlock) => boolean;
  /** Called if the migration left out blocks (x-ignore-shared). Their content reads as zeros. */
  noteIgnored?: (blocks: readonly RamBlock[]) => void;
  /** Called once the content is open, with the plan for reading it. */
  notePlan?: (plan: ContentPlan) => void;
}

/** How a file is opened as a SavedVm. */
export interface SavedVmOptions extends RamContentOptions, Pick<SettleOptions, 'devices'> {
  /** Accept a mapped-ram file with only the pages that changed since a base (`merge.ts`). Default false. */
  changes?: boolean;
}

/** A SavedVm that was opened from a file. */
export interface OpenedVm extends SavedVm {
  ram: OpenedRam;
  /** How its RAM is read. */
  plan: ContentPlan;
}

/** The pages of a VM, in a scratch file. */
interface Scratch {
  file: ByteStore;
  store: MappedRamStore;
  sink: FlowSink;
}

export class VmReading implements FlowSink {
  readonly #file: MigrationFile;
  readonly #options: SavedVmOptions;
  readonly #settler: Settler;
  #plan: ContentPlan;
  #index: StreamIndex | undefined;
  #scratch: Scratch | undefined;

  constructor(file: MigrationFile, options: SavedVmOptions) {
    const { devices = false, changes = false, endBlocks } = options;
    this.#file = file;
    this.#options = options;
    this.#plan = planContent(file);
    const isInPlace = this.#plan.how === 'in-place';
    if (this.#plan.how === 'index') this.#index = new StreamIndex(file, options.only ?? (() => true));
    const pages: FlowSink = {
      take: (item) => this.#takePages(item),
      lostPage: () => (this.#index ?? this.#scratch?.store)?.lostPage(),
    };
    this.#settler = new Settler(file, pages, {
      devices,
      changes: changes && isInPlace,
      ...(endBlocks === undefined ? {} : { endBlocks }),
    });
  }

  /** What the Flow must contain. More is allowed. */
  get read(): NonNullable<FlowOptions['read']> {
    return this.#plan.how === 'in-place' ? 'bitmaps' : 'pages';
  }

  /** @throws MigrationError for bad content, and the errors of the scratch file */
  take(item: FlowItem): Promise<void> | void {
    return this.#settler.take(item);
  }

  /** The VM, once the Flow has ended. Closing its `ram` closes the scratch file. @throws MigrationError */
  async finish(): Promise<OpenedVm> {
    const { blocks, ...rest } = this.#settler.finish();
    const ram =
      this.#plan.how === 'in-place'
        ? new MappedRamReader(this.#file.content, blocks)
        : (this.#index ?? (await this.#openScratch()).store);
    return { ...rest, plan: this.#plan, ram };
  }

  /** Removes the scratch file of a reading that is not finished. */
  async discard(): Promise<void> {
    await this.#scratch?.file.close();
    this.#scratch = undefined;
  }

  #takePages(item: FlowItem): Promise<void> | void {
    if (this.#plan.how === 'in-place') return requirePages(this.#file, item);
    const index = this.#index;
    if (index === undefined) return this.#takeToScratch(item);
    try {
      index.take(item);
    } catch (error) {
      if (!(error instanceof NotIndexable) || this.#plan.how !== 'index') throw error;
      this.#plan = { how: this.#plan.otherwise, reason: error.message };
      this.#index = undefined;
      // The index may have taken a part of the item. To take that again changes nothing.
      return this.#moveToScratch(index).then(() => this.#takeToScratch(item));
    }
  }

  #takeToScratch(item: FlowItem): Promise<void> | void {
    if (this.#scratch !== undefined) return this.#scratch.sink.take(item);
    if (item.kind === 'block') return this.#openScratch().then(({ sink }) => sink.take(item));
  }

  async #openScratch(): Promise<Scratch> {
    if (this.#scratch !== undefined) return this.#scratch;
    const file = await this.#options.makeScratch();
    const store = new MappedRamStore(file, this.#file.pageSlots);
    this.#scratch = { file, store, sink: onlyPages(store, this.#options.only) };
    return this.#scratch;
  }

  /** Moves the pages that an index has so far. */
  async #moveToScratch(index: StreamIndex): Promise<void> {
    index.finish();
    const { file, store } = await this.#openScratch();
    for (const block of index.blocks) {
      const { pageSize, mapped } = await store.addBlock(block);
      const bytes = new Uint8Array(Math.max(pieceBytes, pageSize));
      for (let page = 0; page < pageCount(block); ) {
        const { first, end } = await index.nextData(block, page, bytes.length / pageSize);
        const run = bytes.subarray(0, (end - first) * pageSize);
        if (run.length === 0) break;
        await index.read(block, first, run);
        await file.write(run, (mapped?.pagesOffset ?? 0) + first * pageSize);
        page = end;
      }
      store.note(index.listStates(block));
    }
  }
}

/** @throws MigrationError `truncated` if a page whose bit is set is not completely within the file. */
function requirePages(file: MigrationFile, item: FlowItem): void {
  if (item.kind !== 'bitmap' || item.block.mapped === undefined) return;
  const { block, firstPage, bits } = item;
  let last = bits.length - 1;
  while (last >= 0 && bits[last] === 0) last--;
  if (last < 0) return;
  const page = firstPage + last * 8 + 31 - Math.clz32(bits[last] as number);
  const end = item.block.mapped.pagesOffset + (page + 1) * block.pageSize;
  const size = file.source.size as number;
  if (end <= size) return;
  throw new MigrationError('truncated', `expected page ${page} to end at ${end}, got a file of ${size} bytes`, {
    ...placeIn(file.source, size),
    section: 'ram',
    block: block.idstr,
    page,
  });
}
