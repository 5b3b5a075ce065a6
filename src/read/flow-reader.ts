/**
 * Bytes to Flow: decodes the streams, multifd channels and preempt channels of one migration into Flow items. It reads
 * from any `ByteSource`, so it serves captures in files and live connections alike. The caller chooses the sources and
 * their order (`open.ts` for files).
 *
 *     main stream  ──WindowReader──→ decodeStream, decodeRecovery ──→ PageUnpacker ──┐
 *     channels     ──ChannelReader─→ decodeEpoch, up to each mark ──────────────────┼──→ FlowItem
 *     preempt      ──WindowReader──→ decodePreemptChannel ──────────────────────────┘
 */

import type { ByteSource } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError, makeFinding } from '../vm/migration-error.ts';
import type { ByteWindow, Need } from '../wire/byte-window.ts';
import { decodePreemptChannel } from '../wire/preempt.ts';
import { isDamage } from '../wire/salvage.ts';
import { decodeRecovery, decodeStream, makeStreamState, type StreamOptions, type StreamState } from '../wire/stream.ts';
import { allocateChannels, ChannelSet, channelArenaBytes } from './channels.ts';
import { PageUnpacker, unpackArenaBytes } from './unpack.ts';
import { allocateWindow, drive, type WindowBuffers, WindowReader, windowArenaBytes } from './window-reader.ts';

/** Page records collected at a time. */
export const flowBatchCapacity = 4096;

/** What the buffers of a Flow are for. */
export interface FlowSources {
  /** Multifd channels. */
  channels: number;
  /** Whether a source is read while the main window is still in use. */
  hasSide: boolean;
}

/** Bytes of arena that {@link FlowBuffers} take. */
export const flowArenaBytes = ({ channels, hasSide }: FlowSources): number =>
  channelArenaBytes(channels) +
  unpackArenaBytes +
  windowArenaBytes() * (hasSide ? 2 : 1) +
  pageBatchArenaBytes(flowBatchCapacity);

/**
 * The parts of a kernel's arena in which Flows are decoded. They are allocated once, and one Flow at a time uses them.
 */
export class FlowBuffers {
  readonly kernel: Kernel;
  readonly codecs: PageCodecs;
  readonly batch: PageBatch;
  readonly unpacker: PageUnpacker;
  /** The window of the main stream. */
  readonly main: WindowBuffers;
  /** The window of a source that is read while the main window is still in use. */
  readonly side: WindowBuffers | undefined;
  /** A window for each multifd channel. */
  readonly channels: readonly WindowBuffers[];

  /** @throws RangeError if the arena is too small */
  constructor(kernel: Kernel, codecs: PageCodecs, { channels, hasSide }: FlowSources) {
    this.kernel = kernel;
    this.codecs = codecs;
    this.channels = allocateChannels(kernel, channels);
    this.unpacker = new PageUnpacker(kernel, codecs);
    this.main = allocateWindow(kernel);
    this.side = hasSide ? allocateWindow(kernel) : undefined;
    this.batch = new PageBatch(kernel, flowBatchCapacity);
  }
}

/** How a Flow is read. */
export interface FlowReaderOptions extends Pick<StreamOptions, 'sizes'> {
  /** As in `FlowOptions`. */
  read: 'pages' | 'bitmaps';
  /** The multifd channels of the main stream. */
  channels: readonly ByteSource[];
  /** As in `FlowOptions`. Default false. */
  partial?: boolean;
}

/** Where a stream is, and what follows its end. */
export interface StreamPlace {
  /** Offset of the stream's first byte in the source. Default 0. */
  offset?: number;
  /** Whether not all of its bytes will be needed: it is a mapped-ram file. Default false. */
  seeks?: boolean;
  /** Yields further items before the item `end`. Its argument `end` is the offset after the stream. Default: none. */
  atEnd?: (reader: WindowReader, end: number) => AsyncIterable<FlowItem>;
}

/** One migration while it is being read. */
export class FlowReader {
  readonly #buffers: FlowBuffers;
  readonly #options: StreamOptions & { read: 'pages' | 'bitmaps'; partial: boolean };
  readonly #state: StreamState;
  readonly #channels: ChannelSet | undefined;
  /** Whether a stream was read before: the next one is its recovery. */
  #hasStream = false;
  #reader: WindowReader | undefined;
  /** Bytes of the sources before the current one, and the offset where the current one began. */
  #passed = 0;
  #start = 0;

  constructor(buffers: FlowBuffers, { read, sizes, channels, partial = false }: FlowReaderOptions) {
    const { kernel, batch, codecs, unpacker } = buffers;
    this.#buffers = buffers;
    this.#options = { sizes, read, hasChannels: channels.length > 0, partial };
    this.#state = makeStreamState(batch, this.#options);
    if (channels.length > 0) {
      const context = { ram: this.#state.ram, batch, slots: unpacker.slots, read };
      this.#channels = new ChannelSet(kernel, channels, buffers.channels, codecs, context);
    }
  }

  /** The multifd channels; undefined if there are none. */
  get channels(): ChannelSet | undefined {
    return this.#channels;
  }

  /** How many bytes of all sources have been read, for progress. */
  get reached(): number {
    const ofCurrent = this.#reader === undefined ? 0 : this.#reader.reached - this.#start;
    return this.#passed + ofCurrent + (this.#channels?.reached ?? 0);
  }

  /**
   * The offset in `source` of the byte at an arena address, as long as an item of the Flow refers to it. Undefined if
   * that byte was not read directly from `source`.
   */
  offsetIn(source: ByteSource, address: number): number | undefined {
    return this.#reader?.source === source ? this.#reader.offsetOf(address) : undefined;
  }

  /** Reads the first bytes of the channels. @throws MigrationError `bad-channel` if they are not of one set */
  async begin(): Promise<void> {
    await this.#channels?.begin();
  }

  /** Reads a stream to its end; after one that broke off, its recovery. @throws MigrationError if it cannot be read */
  async *stream(
    source: ByteSource,
    { offset = 0, seeks = false, atEnd }: StreamPlace = {},
  ): AsyncGenerator<FlowItem, void> {
    const reader = this.#open(source, this.#buffers.main, offset, seeks);
    const { window } = reader;
    const channels = this.#channels;
    const isUnpacked = this.#options.read === 'pages';
    const missing = channels?.missing();
    if (missing !== undefined) yield { kind: 'finding', finding: missing };
    for await (const item of drive<FlowItem>(reader, this.#decode(window))) {
      if (item.kind === 'pages' && !this.#state.ram.postcopy) channels?.checkMainPages(item, window);
      if (item.kind === 'pages' && isUnpacked) yield* this.#buffers.unpacker.unpack(item, this.#options.partial);
      else if (item.kind === 'sync' && channels !== undefined) {
        const mark = { ...window.place(item.offset), section: 'ram' };
        for (const channel of channels.epoch()) yield* channels.packets(channel, mark);
        yield { ...item, channels: channels.count };
      } else {
        if (item.kind === 'configuration') channels?.checkConfiguration(item.configuration);
        if (item.kind === 'eof' && channels !== undefined) yield* channels.end();
        if (item.kind === 'end' && atEnd !== undefined) yield* atEnd(reader, item.offset);
        yield item;
      }
    }
  }

  /**
   * Reads a stream that breaks off.
   * @throws MigrationError `truncated` if it breaks off before the switchover and cannot be recovered;
   *   `mismatched-source` if it does not break off
   */
  async *brokenStream(source: ByteSource): AsyncGenerator<FlowItem, void> {
    const reader = this.#open(source, this.#buffers.main);
    const { window } = reader;
    const isUnpacked = this.#options.read === 'pages';
    try {
      for await (const item of drive<FlowItem>(reader, this.#decode(window))) {
        if (item.kind === 'pages' && isUnpacked) yield* this.#buffers.unpacker.unpack(item, this.#options.partial);
        else yield item;
      }
    } catch (error) {
      if (!this.#state.switchedOver) throw error;
      yield brokenOff(error, 'the stream breaks off here');
      return;
    }
    throw new MigrationError('mismatched-source', 'expected a stream that breaks off in postcopy', window.place());
  }

  /**
   * Reads a preempt channel; `mayBreak` says whether it may break off.
   * @throws MigrationError `mismatched-source` if the previous stream never switched over to postcopy
   */
  async *preemptChannel(source: ByteSource, mayBreak: boolean): AsyncGenerator<FlowItem, void> {
    const { side, batch } = this.#buffers;
    if (side === undefined) throw new RangeError('expected buffers with a side window');
    const reader = this.#open(source, side);
    const { window } = reader;
    if (!this.#state.switchedOver) {
      const message = 'a preempt channel of a stream that never switched over to postcopy';
      throw new MigrationError('mismatched-source', message, window.place());
    }
    try {
      yield* drive<FlowItem>(reader, decodePreemptChannel(window, this.#state.ram, batch));
    } catch (error) {
      if (!mayBreak) throw error;
      yield brokenOff(error, 'the preempt channel breaks off here');
    }
  }

  /** Whether an error that ended the Flow leaves something to keep: the RAM blocks are known, and the files are one set. */
  isSalvageable(error: unknown): error is MigrationError {
    return isDamage(error) && this.#state.ram.blocks.length > 0;
  }

  /** Waits for pending reads. Afterwards nothing writes to the arena. */
  async close(): Promise<void> {
    await this.#reader?.settle();
    await this.#channels?.close();
  }

  #open(source: ByteSource, buffers: WindowBuffers, offset = 0, seeks = false): WindowReader {
    if (this.#reader !== undefined) this.#passed += this.#reader.reached - this.#start;
    this.#start = offset;
    this.#reader = new WindowReader(this.#buffers.kernel, buffers, source, offset, { seeks });
    return this.#reader;
  }

  #decode(window: ByteWindow): Generator<Need | FlowItem, void> {
    if (this.#hasStream) return decodeRecovery(window, this.#state);
    this.#hasStream = true;
    return decodeStream(window, this.#buffers.batch, this.#options, this.#state);
  }
}

/** The finding for a source that broke off. Rethrows every other error. */
function brokenOff(error: unknown, message: string): FlowItem {
  if (!(error instanceof MigrationError) || error.code !== 'truncated') throw error;
  return { kind: 'finding', finding: makeFinding('broken-off', message, error.place) };
}
