/**
 * Sends a migration that passes through a relay in another encoding: RAM through multifd channels, whatever the source
 * does. Everything else passes byte for byte.
 *
 *     source   START   PART a b c … | a c …          PART …    END            devices
 *                                   ↑ the scan starts again
 *     main     START mark           PART mark                  END mark       devices
 *     channel  SYNC    a b c …      SYNC a c …                 SYNC
 *
 *     postcopy: from the first command of postcopy on, everything of the main connection passes as it is
 *
 * A target takes the packets of one epoch in any order, so no page may occur twice between two marks. So there is a mark
 * where the scan of a plain source starts again, at each mark of a source with channels, and before each section that is
 * not of RAM. Deltas (XBZRLE) become whole pages, for which the content is kept.
 */
import type { ByteSink } from '../io/byte-source.ts';
import type { PageCodecs, StreamFormat } from '../io/page-codec.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import { type ReleaseName, type ReleaseRules, releaseRulesOf } from '../schema/release-rules.ts';
import type { Configuration, FlowItem } from '../vm/flow.ts';
import { MigrationError, type Place } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../wire/command.ts';
import { FlowWriter } from '../write/flow-writer.ts';
import { MultifdWriter, multifdArenaBytes } from '../write/multifd-writer.ts';
import { StreamWriter, writerArenaBytes } from '../write/stream-writer.ts';

/** As in QEMU. */
const defaultChannels = 2;

/** Pages of deltas that are made whole at a time. */
const wholeBytes = 256 * 1024;

/** Bytes of arena that a {@link RelayEncoder} takes. */
export const relayEncoderArenaBytes =
  writerArenaBytes + multifdArenaBytes + arenaBytes(wholeBytes) + pageBatchArenaBytes(flowBatchCapacity);

/** How the target's side is encoded. */
export interface TargetEncoding {
  /** Multifd channels, from 1 to 255. Default: as many as the source has, or 2 if it has none. */
  channels?: number | undefined;
  /** Default `none`. */
  compression?: 'none' | StreamFormat | undefined;
  codecs: PageCodecs;
  /** The guest's UUID as 32 hex digits, if the source does not send it. A target refuses any but its own. */
  uuid?: string | undefined;
  /** The release of the target, if the machine type does not name a version. */
  compat?: ReleaseName | undefined;
}

export interface RelayEncoderOptions extends TargetEncoding {
  main: ByteSink;
  /** Name of the source's main connection. */
  mainName: string;
  /** Returns the sinks of the target's channels, which are connected one after another as they are first written to. */
  connectChannels: (count: number) => ByteSink[];
  /** What is known of the source's channels. */
  source: () => {
    channels: number;
    uuid: string | undefined /** Marks stand for themselves (8.1). */;
    hasMarks: boolean;
  };
  /** The latest section of an iterable other than RAM, with all its bytes. */
  latestSection: () => RawSection | undefined;
  /** Reads the present content of a page. Without it, deltas are refused. */
  readPage: ((block: RamBlock, page: number, target: Uint8Array) => Promise<void>) | undefined;
}

/** Commands that a source sends only once it has begun postcopy. Its pages then come on the main connection. */
const postcopyCommands: readonly number[] = [
  ...[CommandCode.postcopyRamDiscard, CommandCode.packaged, CommandCode.postcopyListen],
];

/** Takes the items of the source's Flow, and writes to the target. */
export class RelayEncoder {
  readonly #options: RelayEncoderOptions;
  readonly #kernel: Kernel;
  /** What comes before the START of RAM, after the configuration. */
  readonly #before: Uint8Array[] = [];
  readonly #whole: number;
  readonly #batch: PageBatch;
  #configuration: Configuration | undefined;
  #blocks: RamBlock[] = [];
  #ramId: number | undefined;
  #hasFooters = true;
  #hasChannels = false;
  #main: StreamWriter | undefined;
  #rest: FlowWriter | undefined;
  #multifd: MultifdWriter | undefined;
  #ram: 'before' | 'open' | 'ending' | 'postcopy' = 'before';
  #marks: ReleaseRules['multifdMarks'] = 'round';

  /** Allocates {@link relayEncoderArenaBytes} in the arena, which also contains the pages of the items. */
  constructor(kernel: Kernel, options: RelayEncoderOptions) {
    this.#kernel = kernel;
    this.#options = options;
    this.#whole = kernel.allocate(wholeBytes);
    this.#batch = new PageBatch(kernel, flowBatchCapacity);
  }

  /**
   * @throws MigrationError `unsupported` for what cannot be encoded again; the error of a finding that makes the content
   *   doubtful; whatever a sink throws
   */
  async take(item: FlowItem): Promise<void> {
    refuse(item);
    if (this.#ram === 'postcopy') return this.#passPostcopy(item);
    switch (item.kind) {
      case 'configuration':
        this.#configuration = item.configuration;
        break;
      case 'finding':
        if (item.finding.code === 'no-footers') this.#hasFooters = false;
        break;
      case 'block':
        this.#blocks.push(item.block);
        break;
      case 'pages':
        await this.#takePages(item.block, item.batch);
        break;
      case 'sync':
        this.#hasChannels = item.channels > 0;
        if (this.#ram === 'open') await this.#multifd?.endPart();
        break;
      case 'pass-end':
        // In the END each page comes once.
        if (this.#ram === 'open') await this.#multifd?.endPart();
        break;
      case 'section':
      case 'section-end':
        if (item.section.name === 'ram') await this.#takeRamSection(item);
        else await this.#pass(item);
        break;
      case 'command':
        if (this.#ram === 'open' && postcopyCommands.includes(item.command.code)) {
          await this.#multifd?.endPart();
          this.#ram = 'postcopy';
          return this.#passPostcopy(item);
        }
        await this.#pass(item);
        break;
      case 'device':
      case 'eof':
      case 'description':
        await this.#pass(item);
        break;
      default:
    }
  }

  /** Passes on an item of postcopy at once: the guest may wait for it. Channels only have their marks. */
  async #passPostcopy(item: FlowItem): Promise<void> {
    // The page of a preempt channel passes on a connection of its own.
    if (item.kind === 'pages' && item.batch.origin.source !== this.#options.mainName) return;
    await this.#rest?.take(item);
    const isMark =
      this.#marks === 'section'
        ? item.kind === 'section-end' && item.section.name === 'ram'
        : item.kind === 'sync' && this.#hasChannels;
    if (isMark) await this.#multifd?.mark();
    else if (item.kind !== 'section' && item.kind !== 'device') await this.#main?.flush();
  }

  /** Everything was taken. Waits until it is written. */
  async finish(): Promise<void> {
    await this.#main?.flush();
    await this.#multifd?.close();
  }

  /** Frees the compressors after a failure. */
  abandon(): void {
    this.#multifd?.abandon();
  }

  async #takeRamSection(item: Extract<FlowItem, { kind: 'section' | 'section-end' }>): Promise<void> {
    const { kind, id, offset } = item.section;
    if (item.kind === 'section') {
      this.#ramId ??= id;
      if (kind !== 'end') return;
      this.#requireOpen(offset);
      this.#ram = 'ending';
      await this.#multifd?.beginEnd();
    } else if (kind === 'end') {
      await this.#multifd?.endRam();
      await this.#main?.flush();
    } else if (kind !== 'part' && this.#ram === 'before') {
      await this.#startRam();
    }
  }

  #requireOpen(offset: number): void {
    if (this.#ram === 'open') return;
    throw new MigrationError('bad-section', 'expected RAM to be started before its END', { ...place, offset });
  }

  /** Connects the channels, and writes everything up to the end of the START of RAM. */
  async #startRam(): Promise<void> {
    const options = this.#options;
    const main = new StreamWriter(this.#kernel, options.main, { footers: this.#hasFooters, ramId: this.#ramId });
    this.#main = main;
    await main.begin(this.#configuration);
    for (const bytes of this.#before) await main.raw(bytes);
    const source = options.source();
    const sinks = options.connectChannels(options.channels ?? (source.channels || defaultChannels));
    const uuid = source.uuid ?? this.#configuration?.uuid ?? options.uuid;
    const { compression = 'none', codecs } = options;
    const rules = this.#rules(source.hasMarks);
    this.#marks = rules.multifdMarks;
    this.#multifd = await MultifdWriter.open(main, sinks, {
      ...{ rules, compression, codecs, pageSize: this.#blocks[0]?.pageSize ?? 4096 },
      ...(uuid === undefined ? {} : { uuid }),
    });
    const guestAddresses = this.#configuration?.capabilities.includes('x-ignore-shared') ?? false;
    await this.#multifd.startRam(this.#blocks, { guestAddresses });
    this.#rest = new FlowWriter(main, { sectionBytes: async () => this.#latest() });
    this.#ram = 'open';
  }

  /** Which marks and zero pages the target expects. A source with channels shows it by its own marks. */
  #rules(hasMark: boolean): ReleaseRules {
    const { compat } = this.#options;
    const rules = releaseRulesOf(this.#configuration?.machine, compat);
    const isOld = compat === undefined && this.#hasChannels && !hasMark;
    return isOld ? { ...rules, ...oldRules } : rules;
  }

  /** Passes on what is not of RAM. All pages before it have been sent then. */
  async #pass(item: FlowItem): Promise<void> {
    if (this.#rest === undefined) {
      this.#keep(item);
      return;
    }
    if (this.#ram === 'open') await this.#multifd?.endPart();
    await this.#rest.take(item);
    // The states of devices come one after another, up to the EOF.
    const isOfDevice = item.kind === 'device' || 'section' in item;
    if (!isOfDevice) await this.#main?.flush();
  }

  /** Keeps what comes before RAM. */
  #keep(item: FlowItem): void {
    const out = new ByteWriter();
    if (item.kind === 'command') encodeCommand(out, item.command.code, item.command.payload);
    else if (item.kind === 'section-end') out.raw(this.#latest());
    else if (item.kind !== 'section') throw new MigrationError('unsupported', 'expected RAM, got none', place);
    this.#before.push(out.bytes());
  }

  #latest(): Uint8Array {
    return this.#options.latestSection()?.bytes ?? new Uint8Array();
  }

  /** Sends pages, after deltas were made whole. */
  async #takePages(block: RamBlock, batch: PageBatch): Promise<void> {
    // A channel goes on at the mark in the START, whose end may come later.
    if (this.#ram === 'before' && this.#blocks.length > 0) await this.#startRam();
    const multifd = this.#multifd;
    if (multifd === undefined) throw new MigrationError('bad-section', 'expected RAM to be started', place);
    const isWhole = (i: number) => batch.kind[i] === PageKind.data || batch.kind[i] === PageKind.zero;
    let whole = 0;
    while (whole < batch.count && isWhole(whole)) whole++;
    if (whole === batch.count) return multifd.pages(block, batch);
    for (let first = 0; first < batch.count; ) first = await this.#sendWhole(multifd, block, batch, first);
  }

  /** Sends records from `first` on, until there is no more space for whole pages. Returns the first that was not sent. */
  async #sendWhole(multifd: MultifdWriter, block: RamBlock, batch: PageBatch, first: number): Promise<number> {
    const { pageSize } = block;
    const { bytes } = this.#kernel;
    const out = this.#batch;
    out.begin(batch.origin);
    let used = 0;
    let i = first;
    for (; i < batch.count; i++) {
      const [kind, page] = [batch.kind[i] as PageKind, batch.page[i] as number];
      const offset = batch.offset[i] as number;
      if (kind === PageKind.zero || kind === PageKind.data) {
        out.push(kind, page, offset, 0, batch.data[i] as number, batch.length[i] as number);
        continue;
      }
      if (used + pageSize > wholeBytes) break;
      const at = this.#whole + used;
      await this.#readPage(block, page, bytes.subarray(at, at + pageSize));
      out.push(PageKind.data, page, offset, 0, at, pageSize);
      used += pageSize;
    }
    await multifd.pages(block, out);
    return i;
  }

  async #readPage(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { readPage } = this.#options;
    if (readPage !== undefined) return readPage(block, page, target);
    throw new MigrationError('unsupported', 'the content that deltas change was not kept', { ...place, page });
  }
}

const place: Place = { source: 'main', coordinate: 'file', offset: 0, section: 'ram' };
const oldRules = { multifdMarks: 'section', zeroPages: 'records', pagesAllocatedInSync: true } as const;

/** @throws MigrationError for an item that a target with channels could not load, or that makes the content doubtful */
function refuse(item: FlowItem): void {
  const unsupported = (what: string, at: Place) => {
    throw new MigrationError('unsupported', `${what} cannot be passed on with other multifd channels`, at);
  };
  switch (item.kind) {
    case 'command':
      if (item.command.code === CommandCode.enableColo) unsupported('COLO', { ...place, offset: item.command.offset });
      break;
    case 'configuration':
      if (item.configuration.capabilities.includes('mapped-ram')) unsupported('a mapped-ram file', place);
      break;
    case 'unread-pages':
      unsupported(`pages compressed with ${item.method}`, item.place);
      break;
    case 'device-packet':
      unsupported(`device state in multifd packets, as of ${item.device.name},`, item.place);
      break;
    case 'finding':
      if (item.finding.severity === 'error') throw MigrationError.from(item.finding);
      break;
    default:
  }
}
