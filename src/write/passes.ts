/**
 * The one sender: what goes into a stream, and in which order (docs/formats/ram.md, "What is sent when").
 *
 *     begin         header, configuration, commands, START of RAM, START of other iterables
 *     sendAll       one pass: every page                                  ─┐ each ends its PART
 *     sendChanges   one pass: what differs from a base                     │
 *     sendDirty     one pass: what the guest wrote, after a sync          ─┘
 *     sendSome      a step: some of the dirty pages, round and round; the caller ends the PART
 *     finish        PART of other iterables, SWITCHOVER_START, END of RAM with the last dirty pages,
 *                   END of other iterables, devices, EOF, description; postcopy ends otherwise (postcopy-passes.ts)
 *     finishDevices devices, EOF, description: the end of a background snapshot
 *
 * The caller decides on the passes, and on the moment when the guest stops. A file has one or two passes over a stopped
 * guest (`write-stream.ts`, `write-multifd.ts`); a running guest has many (`write-guest.ts`). This file knows neither
 * clock nor bandwidth nor peer.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { type ReleaseRules, releaseRulesOf } from '../schema/release-rules.ts';
import type { SectionKind } from '../vm/flow.ts';
import type { Guest, GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { Framing, RawSection, WritableVm } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';
import { requireDevices } from '../wire/require-vm.ts';
import { type BlockChanges, DeltaScan } from './delta-scan.ts';
import { RamScan, type ScannedBlock } from './ram-scan.ts';
import type { StreamWriter } from './stream-writer.ts';
import type { XbzrleCache } from './xbzrle-cache.ts';

/** What takes RAM: a {@link StreamWriter}, or a `MultifdWriter` with its channels beside one. */
export interface RamWriter {
  startRam(blocks: readonly RamBlock[], options: { guestAddresses?: boolean; hostPages?: boolean }): Promise<void>;
  pages(block: RamBlock, batch: PageBatch): Promise<void>;
  /** Ends the open PART, if any. */
  endPart(): Promise<void>;
  /** Begins the END of RAM. */
  beginEnd(): Promise<void>;
  endRam(): Promise<void>;
}

/** What takes everything else: a {@link StreamWriter}, or a `MappedRamWriter`, which also takes RAM. */
export type VmWriter = Pick<
  StreamWriter,
  | 'kernel'
  | 'length'
  | 'ramBytes'
  | 'ramId'
  | 'begin'
  | 'command'
  | 'raw'
  | 'names'
  | 'omitRamEnd'
  | 'device'
  | 'flush'
  | 'finish'
> &
  // A mapped-ram file has no PARTs.
  Partial<Pick<StreamWriter, 'beginPart' | 'endPart'>>;

export interface PassesOptions {
  /** Default: the writer of everything else. */
  ramWriter?: RamWriter;
  /** Makes deltas of pages that are sent again. Default: none, and all pages are sent whole. */
  cache?: XbzrleCache | undefined;
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
  /** What the QEMU release that loads the stream expects. Default: {@link defaultRules}. */
  rules?: ReleaseRules;
  /** A PART ends with the batch that brings it to this many bytes. Default: it ends with the pass. */
  partBytes?: number;
  /** Commands before RAM, such as the one that opens a return path. */
  commands?: readonly { code: number; payload?: Uint8Array }[];
  /** Called when everything but the end of the stream is written. Until then no destination starts the guest. */
  beforeEnd?: () => Promise<void> | void;
  /** The description of a guest that has none. Default: none is written. */
  otherwiseDescription?: string;
  /** Whether zero pages are found, and sent as such. Default true. */
  findsZeros?: boolean;
  /** Whether blocks of huge pages say so, as they must before postcopy. Default false. */
  hostPages?: boolean;
}

/** What a pass sent of one RAM block. */
export interface WrittenBlock extends ScannedBlock {
  /** With a base: the records of the pass of changes. */
  changes?: BlockChanges;
}

const defaultFraming: Framing = { ramId: 1, footers: true, switchoverStart: false };

/** The rules for a VM by its machine type, with SWITCHOVER_START if its own stream had it. */
export function defaultRules({
  configuration,
  framing = defaultFraming,
}: Pick<WritableVm, 'configuration' | 'framing'>): ReleaseRules {
  const rules = releaseRulesOf(configuration?.machine);
  return { ...rules, switchoverStart: rules.switchoverStart || framing.switchoverStart };
}

export class Passes {
  /** Dirty bitmap syncs so far. */
  syncs = 0;
  /** Records so far: all, those of whole pages, and those of zero pages. */
  records = 0;
  normal = 0;
  duplicate = 0;
  readonly #guest: Guest;
  readonly #writer: VmWriter;
  readonly #ramWriter: RamWriter;
  readonly #cache: XbzrleCache | undefined;
  readonly #iterables: readonly RawSection[];
  readonly #rules: ReleaseRules;
  readonly #partBytes: number;
  readonly #commands: NonNullable<PassesOptions['commands']>;
  readonly #beforeEnd: PassesOptions['beforeEnd'];
  readonly #otherwiseDescription: string | undefined;
  readonly #hostPages: boolean;
  /** Reads the pages. */
  readonly scan: RamScan;
  /** How far the latest pass over all pages has come, by block index. */
  #scanned: readonly WrittenBlock[];
  /** What went, by block index. A page that went twice counts twice. */
  readonly sentOf: readonly WrittenBlock[];
  /** Pages to send, by block index. Undefined until the first sync. */
  #dirty: readonly PageBitmap[] | undefined;
  /** Length of the stream at the start of the PART. */
  #partStart = 0;
  /** Pages are being sent in the END of RAM. */
  #isLastStage = false;
  /** Where {@link sendSome} goes on, and how often it has come round. */
  #cursor = { block: 0, page: 0 };
  #rounds = 0;
  /** Whether all passes are made of steps. Then the first round has no deltas, as in QEMU. */
  #isInSteps = false;

  /**
   * Allocates a {@link RamScan} in the arena of the writer.
   * @throws RangeError for `partBytes` that are not positive.
   */
  constructor(guest: Guest, writer: VmWriter & RamWriter, options: PassesOptions = {}) {
    const { ramWriter = writer, cache, iterables = [], rules = defaultRules(guest), partBytes } = options;
    if (partBytes !== undefined && !(partBytes > 0)) throw new RangeError(`expected bytes of a PART, got ${partBytes}`);
    this.#guest = guest;
    this.#writer = writer;
    this.#ramWriter = ramWriter;
    this.#cache = cache;
    this.#iterables = iterables;
    this.#rules = rules;
    this.#partBytes = partBytes ?? Number.POSITIVE_INFINITY;
    this.#commands = options.commands ?? [];
    this.#beforeEnd = options.beforeEnd;
    this.#otherwiseDescription = options.otherwiseDescription;
    this.#hostPages = options.hostPages ?? false;
    this.#scanned = guest.ram.blocks.map(makeCounts);
    this.sentOf = guest.ram.blocks.map(makeCounts);
    this.scan = new RamScan(writer.kernel, { findsZeros: options.findsZeros ?? true });
  }

  /** Records of pages that went as deltas. */
  get deltas(): number {
    return this.records - this.normal - this.duplicate;
  }

  /** Bytes of the pages that the next {@link sendDirty} sends. */
  get dirtyBytes(): number {
    const dirty = this.#dirty ?? [];
    return this.sentBlocks.reduce((sum, { index, pageSize }) => sum + (dirty[index]?.count ?? 0) * pageSize, 0);
  }

  /** Bytes of pages that are still to be sent, as far as is known: until the first pass is over, all that it has not reached. */
  get remainingBytes(): number {
    if (this.#isInSteps) return this.dirtyBytes;
    const unseen = this.sentBlocks.reduce((sum, block) => {
      const { dataPages = 0, zeroPages = 0, absentPages = 0 } = this.#scanned[block.index] ?? {};
      return sum + block.usedLength - (dataPages + zeroPages + absentPages) * block.pageSize;
    }, 0);
    return Math.max(unseen, this.dirtyBytes);
  }

  /** Bytes of the blocks whose pages are sent. */
  get totalBytes(): number {
    return this.sentBlocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
  }

  /** Sends everything before the first page. */
  async begin(): Promise<void> {
    const { configuration, ram } = this.#guest;
    const capabilities = (configuration?.capabilities ?? []).filter((name) => name !== 'mapped-ram');
    await this.#writer.begin(configuration === undefined ? undefined : { ...configuration, capabilities });
    for (const { code, payload } of this.#commands) await this.#writer.command(code, payload);
    if (this.#hasRam) {
      const guestAddresses = capabilities.includes('x-ignore-shared');
      await this.#ramWriter.startRam(ram.blocks, { guestAddresses, hostPages: this.#hostPages });
    }
    await this.sendIterables('start');
    this.#partStart = this.#writer.length;
  }

  /** Collects the pages that the guest wrote since the last call. */
  async sync(): Promise<void> {
    this.syncs++;
    this.#dirty ??= this.#guest.ram.blocks.map((block) => new PageBitmap(block));
    await this.#guest.syncDirty(this.#dirty);
  }

  /** Makes all pages dirty, for a first pass in steps ({@link sendSome}). */
  markAll(): void {
    this.#isInSteps = true;
    this.#dirty ??= this.#guest.ram.blocks.map((block) => new PageBitmap(block));
    for (const bitmap of this.#dirty) bitmap.fill();
  }

  /**
   * Sends up to `pages` dirty pages in address order, from where the last call ended, round and round. Zero pages in a
   * row may be more. Leaves the PART open. Returns how many pages are no longer dirty; 0: none is.
   */
  async sendSome(pages: number): Promise<number> {
    const blocks = this.sentBlocks;
    for (let left = blocks.length; left >= 0 && this.dirtyBytes > 0; left--) {
      const block = blocks[this.#cursor.block] as RamBlock;
      const dirty = this.#dirty?.[block.index] as PageBitmap;
      const before = dirty.count;
      const from = dirty.nextSet(this.#cursor.page);
      if (from < dirty.pages) {
        const end = await this.#sendStep(block, dirty, from, Math.min(pages, this.#batchPages(block)));
        this.#cursor.page = end;
        if (dirty.count < before) return before - dirty.count;
      }
      this.#cursor = { block: (this.#cursor.block + 1) % blocks.length, page: 0 };
      if (this.#cursor.block === 0) this.#rounds++;
    }
    return 0;
  }

  /** Sends the next batch of dirty pages of a block. Returns the page after it. */
  async #sendStep(block: RamBlock, dirty: PageBitmap, from: number, pages: number): Promise<number> {
    const { ram, blocks } = this.#guest;
    const batches = this.scan.pages(ram, makeCounts(block), dirty, pages, from);
    const { value: batch } = await batches.next();
    if (batch === undefined) return dirty.pages;
    const end = (batch.page[batch.count - 1] as number) + 1;
    for (const records of this.#encode(blocks[block.index] as GuestBlock, block, batch)) {
      await this.#ramWriter.pages(block, records);
      this.#note(block, records);
    }
    await batches.return();
    return end;
  }

  /** Sends all pages in one pass, by default those of the guest's RAM. Returns counts for each block. */
  async sendAll(ram: RamReader = this.#guest.ram): Promise<WrittenBlock[]> {
    // This pass includes all pages that were dirty before.
    this.#dirty = undefined;
    const blocks = ram.blocks.map(makeCounts);
    this.#scanned = blocks;
    for (const { index } of this.sentBlocks) {
      const counts = blocks[index] as WrittenBlock;
      const { block } = counts;
      await this.#send(block, this.scan.pages(ram, counts, undefined, this.#batchPages(block)));
    }
    await this.endPart();
    return blocks;
  }

  /**
   * Sends the pages that differ from a base in one pass, as deltas if these are shorter. The base must have been sent
   * before. Allocates a {@link DeltaScan} in the arena. Returns counts for each block.
   */
  async sendChanges(base: RamReader): Promise<WrittenBlock[]> {
    const { ram } = this.#guest;
    const scan = new DeltaScan(this.#writer.kernel);
    const blocks: WrittenBlock[] = ram.blocks.map(makeCounts);
    for (const block of this.sentBlocks) {
      const counts = blocks[block.index] as WrittenBlock;
      counts.changes = { deltaPages: 0, deltaBytes: 0, dataPages: 0, zeroPages: 0 };
      await this.#send(block, scan.pages(base, ram, counts, counts.changes));
    }
    await this.endPart();
    return blocks;
  }

  /** Sends the dirty pages in one pass. A page in the cache, if there is a cache, goes as a delta. */
  async sendDirty(): Promise<void> {
    await this.#sendEachDirty();
    await this.endPart();
  }

  /**
   * Sends the rest: the last dirty pages and the states of the devices. The guest must be stopped.
   * @throws RangeError for devices that no stream can contain.
   */
  async finish(): Promise<void> {
    await this.beginSwitchover();
    if (this.#hasRam) await this.sendLastPages();
    await this.sendIterables('end');
    await this.finishDevices();
  }

  /** Sends the dirty pages in an END of RAM. `isLast`: false if others follow (COLO), so that the cache takes these. */
  async sendLastPages(isLast = true): Promise<void> {
    await this.#ramWriter.beginEnd();
    this.#isLastStage = isLast;
    await this.#sendEachDirty();
    this.#rounds++;
    await this.#ramWriter.endRam();
  }

  /**
   * Sends the states of the devices and the end. A background snapshot ends so after its pages.
   * @throws RangeError for devices that no stream can contain.
   */
  async finishDevices(): Promise<void> {
    const writer = this.#writer;
    const { devices, description } = await this.#guest.saveDevices();
    requireDevices(devices, writer.ramId);
    for (const device of devices) await writer.device(device);
    await this.#beforeEnd?.();
    await writer.finish(description?.text ?? this.#otherwiseDescription);
  }

  /** The dirty pages, by block index. Empty before the first sync. */
  get dirty(): readonly PageBitmap[] {
    return this.#dirty ?? [];
  }

  /** Sends what comes right after the guest was stopped, before the ENDs. */
  async beginSwitchover(): Promise<void> {
    await this.sendIterables('part');
    if (this.#rules.switchoverStart) await this.#writer.command(CommandCode.switchoverStart);
  }

  get #hasRam(): boolean {
    const { framing = defaultFraming, ram } = this.#guest;
    return framing.ramId !== undefined || ram.blocks.length > 0;
  }

  /** The blocks whose pages are sent. */
  get sentBlocks(): readonly RamBlock[] {
    const { ram, ignored = [] } = this.#guest;
    return ram.blocks.filter(({ index }) => !ignored.some((block) => block.index === index));
  }

  /** The most pages to read at a time, so that a PART does not get too long. */
  #batchPages({ pageSize }: RamBlock): number {
    return Math.max(1, Math.floor(this.#partBytes / pageSize));
  }

  /** Sends the sections of this kind of iterables other than RAM: all, or those that can or cannot wait for postcopy. */
  async sendIterables(kind: SectionKind, which: 'all' | 'now' | 'postcopiable' = 'all'): Promise<void> {
    for (const section of this.#iterables) {
      const isLate = section.isPostcopiable === true;
      if (which !== 'all' && isLate !== (which === 'postcopiable')) continue;
      if (section.kind === kind) await this.#writer.raw(section.bytes, section.rest);
    }
  }

  async #sendEachDirty(): Promise<void> {
    const { ram, blocks } = this.#guest;
    for (const block of this.sentBlocks) {
      const dirty = this.#dirty?.[block.index];
      if (dirty === undefined) continue;
      const batches = this.scan.pages(ram, makeCounts(block), dirty, this.#batchPages(block));
      await this.#send(block, batches, (batch) => this.#encode(blocks[block.index] as GuestBlock, block, batch));
    }
  }

  #encode(placed: GuestBlock, block: RamBlock, batch: PageBatch): Iterable<PageBatch> {
    if (this.#isInSteps && this.#rounds === 0) return [batch];
    const context = { generation: this.syncs, isLastStage: this.#isLastStage, isNamed: this.#writer.names(block) };
    return this.#cache?.encode(placed, batch, context) ?? [batch];
  }

  async #send(
    block: RamBlock,
    batches: AsyncIterable<PageBatch>,
    encode: (batch: PageBatch) => Iterable<PageBatch> = (batch) => [batch],
  ): Promise<void> {
    for await (const batch of batches) {
      for (const records of encode(batch)) {
        await this.#ramWriter.pages(block, records);
        this.#note(block, records);
      }
      if (!this.#isLastStage && this.#writer.length - this.#partStart >= this.#partBytes) await this.endPart();
    }
  }

  /** Ends the open PART, if any. */
  async endPart(): Promise<void> {
    await this.#ramWriter.endPart();
    this.#partStart = this.#writer.length;
  }

  /** Sends a PART without pages. */
  async emptyPart(): Promise<void> {
    await this.endPart();
    await this.#writer.beginPart?.();
    await this.#writer.endPart?.();
  }

  /** Counts records of a block that were sent. */
  #note({ index }: RamBlock, records: PageBatch): void {
    const sent = this.sentOf[index] as WrittenBlock;
    const before = this.duplicate;
    this.count(records);
    const zeros = this.duplicate - before;
    sent.records += records.count;
    sent.zeroPages += zeros;
    sent.dataPages += records.count - zeros;
  }

  /** Counts records that were sent. */
  count({ count, kind }: PageBatch): void {
    this.records += count;
    for (let i = 0; i < count; i++) {
      if (kind[i] === PageKind.data) this.normal++;
      else if (kind[i] === PageKind.zero) this.duplicate++;
    }
  }
}

const makeCounts = (block: RamBlock): WrittenBlock => ({
  ...{ block, dataPages: 0, zeroPages: 0, absentPages: 0 },
  records: 0,
});
