/**
 * Reads a file as a SavedVm: a sink that takes a Flow, and gives the VM when the Flow has ended. Other sinks can take the same
 * Flow, so that the file is read once. `content-plan.ts` decides how RAM is kept: a mapped-ram file stays where it is, a stream
 * gets an index (`stream-index.ts`), and everything else goes to a scratch file. If an index turns out to be impossible, its pages
 * move to a scratch file, and the reading goes on.
 */
import type { Abortable } from '../io/abort.ts';
import { type ByteStore, placeIn } from '../io/byte-source.ts';
import { FindingLog } from '../read/finding-log.ts';
import type { FlowOptions, MigrationFile } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding } from '../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { type ContentPlan, planContent } from './content-plan.ts';
import { type FlowSink, onlyPages } from './flow-sink.ts';
import { MappedRamReader } from './mapped-ram-reader.ts';
import { MappedRamStore } from './mapped-ram-store.ts';
import { findMissing, type MissingRam } from './missing-ram.ts';
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
  /** Accept blocks that the migration left out (x-ignore-shared). Their content reads as zeros. Default false. */
  acceptIgnored?: boolean;
  /**
   * Accept a file that is incomplete or damaged, and read what it has. What is missing reads as zeros. Default false.
   */
  partial?: boolean;
  /** With `partial`: called once the content is open, if something is missing. */
  noteMissing?: (missing: MissingRam) => void;
  /** Called once the content is open, with the plan for reading it. */
  notePlan?: (plan: ContentPlan) => void;
}

/** For a mapped-ram file, which is read in place. */
export const noScratch = (): never => {
  throw new Error('a mapped-ram file needs no scratch file');
};

/** How a file is opened as a SavedVm. */
export interface SavedVmOptions extends RamContentOptions, Pick<SettleOptions, 'devices' | 'whole'> {
  /** Accept a mapped-ram file with only the pages that changed since a base (`merge.ts`). Default false. */
  changes?: boolean;
}

/** A SavedVm that was opened from a file. */
export interface OpenedVm extends SavedVm {
  ram: OpenedRam;
  /** How its RAM is read. */
  plan: ContentPlan;
  /** With `partial`: what is missing. Undefined if the file is complete. */
  missing: MissingRam | undefined;
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
  /** With `partial`: what shows that content is missing, besides what the settler finds. */
  readonly #lost = new FindingLog();
  /** Some bit of a mapped-ram file is set: its bitmaps were written. */
  #hasBits = false;
  readonly #noteLost: ((finding: Finding) => void) | undefined;
  #plan: ContentPlan;
  #index: StreamIndex | undefined;
  #scratch: Scratch | undefined;

  constructor(file: MigrationFile, options: SavedVmOptions) {
    const { changes = false, only = () => true, partial = false } = options;
    this.#file = file;
    this.#options = options;
    this.#plan = planContent(file);
    this.#noteLost = partial ? (finding) => this.#lost.add(finding) : undefined;
    if (this.#plan.how === 'index') this.#index = new StreamIndex(file, only, this.#noteLost);
    const pages: FlowSink = {
      take: (item) => this.#takePages(item),
      lostPage: () => (this.#index ?? this.#scratch?.store)?.lostPage(),
      absentPages: (block) => (only(block) ? (this.#index ?? this.#scratch?.store)?.absentPages(block) : undefined),
    };
    const isInPlace = this.#plan.how === 'in-place';
    this.#settler = new Settler(file, pages, { ...settleOptions(options), changes: changes && isInPlace });
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
    const { gaps: settled, hasRamEnd, blocks, ...vm } = this.#settler.finish();
    const gaps = [...settled, ...this.#lost.list()];
    const ram =
      this.#plan.how === 'in-place'
        ? this.#readInPlace(blocks, gaps, hasRamEnd)
        : (this.#index ?? (await this.#openScratch()).store);
    const missing = await findMissing(ram, gaps, vm.ignored, this.#options.only);
    return { ...vm, plan: this.#plan, ram, missing };
  }

  #readInPlace(blocks: readonly RamBlock[], gaps: readonly Finding[], hasRamEnd: boolean): MappedRamReader {
    const clearBit = gaps.some(({ code }) => code === 'changes-only') ? ('absent' as const) : ('zero' as const);
    const lacks = { size: this.#file.source.size, clearBit, isUnmarked: !hasRamEnd && !this.#hasBits };
    return new MappedRamReader(this.#file.content, blocks, this.#options.partial === true ? lacks : {});
  }

  /** Removes the scratch file of a reading that is not finished. */
  async discard(): Promise<void> {
    await this.#scratch?.file.close();
    this.#scratch = undefined;
  }

  #takePages(item: FlowItem): Promise<void> | void {
    if (this.#plan.how === 'in-place') return this.#requirePages(item);
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

  /** @throws MigrationError `truncated` for a page that is not completely within the file, if the file must be complete */
  #requirePages(item: FlowItem): void {
    if (item.kind === 'bitmap') this.#hasBits ||= item.bits.some((byte) => byte !== 0);
    const cut = findCut(this.#file, item);
    if (cut === undefined) return;
    if (this.#noteLost === undefined) throw MigrationError.from(cut);
    if (!this.#lost.has('truncated')) this.#noteLost(cut);
  }

  #takeToScratch(item: FlowItem): Promise<void> | void {
    if (this.#scratch !== undefined) return this.#scratch.sink.take(item);
    if (item.kind === 'block') return this.#openScratch().then(({ sink }) => sink.take(item));
  }

  async #openScratch(): Promise<Scratch> {
    if (this.#scratch !== undefined) return this.#scratch;
    const file = await this.#options.makeScratch();
    const store = new MappedRamStore(file, this.#file.pageSlots, { noteLost: this.#noteLost });
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

/** The finding for a page whose bit is set, but that is not completely within the file. */
function findCut(file: MigrationFile, item: FlowItem): Finding | undefined {
  if (item.kind !== 'bitmap' || item.block.mapped === undefined) return undefined;
  const { block, firstPage, bits } = item;
  let last = bits.length - 1;
  while (last >= 0 && bits[last] === 0) last--;
  if (last < 0) return undefined;
  const page = firstPage + last * 8 + 31 - Math.clz32(bits[last] as number);
  const end = item.block.mapped.pagesOffset + (page + 1) * block.pageSize;
  const size = file.source.size as number;
  if (end <= size) return undefined;
  return makeFinding('truncated', `expected page ${page} to end at ${end}, got a file of ${size} bytes`, {
    ...placeIn(file.source, size),
    section: 'ram',
    block: block.idstr,
    page,
  });
}

function settleOptions({
  devices = false,
  endBlocks,
  only,
  acceptIgnored,
  partial = false,
  whole = false,
}: SavedVmOptions): SettleOptions {
  const needs = acceptIgnored === true ? () => false : only;
  return {
    devices,
    partial,
    whole,
    ...(needs === undefined ? {} : { needs }),
    ...(endBlocks === undefined ? {} : { endBlocks }),
  };
}
