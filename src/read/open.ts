/**
 * Opens a migration file: finds out what can be known before reading it through, and gives its Flow.
 *
 * A migration may have come in several pieces: multifd channels, recoveries of a postcopy migration, and the preempt
 * channel. Their Flow is one. The pages of multifd channels come before the mark that they belong to. Those of the
 * preempt channel come last: the order of pages after the switchover is free, since each is sent once, with the guest
 * stopped at the source.
 */

import { type ByteSource, originOf } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { PortableCodecs } from '../io/portable-codecs.ts';
import { type Kernel, type KernelVariant, loadKernel } from '../kernel/kernel.ts';
import { PageBatch } from '../kernel/page-batch.ts';
import { PageSlots } from '../kernel/page-slots.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding } from '../vm/migration-error.ts';
import { decodePreemptChannel } from '../wire/preempt.ts';
import { decodeReturnPath, type ReturnMessage } from '../wire/return-path.ts';
import { decodeRecovery, decodeStream, makeStreamState, type StreamOptions, type StreamState } from '../wire/stream.ts';
import type { DeviceSizes } from '../wire/vm-description.ts';
import { allocateChannels, type ChannelReport, ChannelSet, channelArenaBytes, maxChannels } from './channels.ts';
import { type Container, type ContainerOptions, type Located, locateStream } from './container/container.ts';
import { listParts, type PartLists, type Parts } from './parts.ts';
import { examineTrailing, readSizes } from './stream-end.ts';
import { PageUnpacker, unpackArenaBytes } from './unpack.ts';
import { allocateWindow, drive, type WindowBuffers, WindowReader } from './window-reader.ts';

export interface OpenOptions<Input = ByteSource> extends Parts<Input>, ContainerOptions {
  /** Where the stream, or what it is in, begins in the source, in bytes. Default 0. */
  offset?: number;
  /** Which build of the kernels. Default: SIMD where there is SIMD. */
  variant?: KernelVariant;
  /** What decompresses pages. Default: the platform's fastest. */
  codecs?: PageCodecs;
  /** Bytes of the arena beyond what reading takes: for what writes the Flow on, such as `writerArenaBytes`. Default 0. */
  spareBytes?: number;
}

export interface FlowOptions {
  /**
   * `bitmaps`: only what pages there are. Of a mapped-ram file the pages are not read; those of multifd channels come
   * without data, and compressed ones as they are in the stream. Default `pages`.
   */
  read?: 'pages' | 'bitmaps';
}

/** Page records gathered at a time. */
const batchCapacity = 4096;
/** The arena: two read buffers, page slots and tables. */
const arenaBytes = (4 << 20) + unpackArenaBytes;
/** Room for two more read buffers. */
const sideBytes = 9 << 18;

/** A migration stream or mapped-ram file that was opened. One Flow is read at a time. */
export class MigrationFile {
  /** What was opened. */
  readonly input: ByteSource;
  /** What the stream is read from: the input, or one that decompresses it or gathers it from clusters. */
  readonly source: ByteSource;
  /** Where the stream begins in the source. */
  readonly offset: number;
  /** What the stream was found in, from the outside in. */
  readonly containers: readonly Container[];
  readonly kernel: Kernel;
  /** Shared by the stores that take this file's pages. */
  readonly pageSlots: PageSlots;
  /** The other sources that belong to the migration. */
  readonly parts: PartLists;
  readonly #findings: readonly Finding[];
  readonly #batch: PageBatch;
  readonly #buffers: WindowBuffers;
  /** For what is read while the window of the file is still in use. */
  readonly #sideBuffers: WindowBuffers | undefined;
  readonly #channelBuffers: readonly WindowBuffers[];
  readonly #codecs: PageCodecs;
  readonly #unpacker: PageUnpacker;
  #channels: ChannelSet | undefined;
  #sizes: DeviceSizes | undefined;
  #reader: WindowReader | undefined;
  #contentReached: number | undefined;
  #isReading = false;
  /** Bytes of the sources that were read before the current one, and where that began. */
  #passed = 0;
  #start = 0;

  constructor(
    input: ByteSource,
    { source, offset, containers, findings }: Located,
    kernel: Kernel,
    options: OpenOptions,
  ) {
    this.input = input;
    this.source = source;
    this.offset = offset;
    this.containers = containers;
    this.#findings = findings;
    this.kernel = kernel;
    this.parts = listParts(options);
    this.#codecs = options.codecs ?? new PortableCodecs();
    this.#channelBuffers = allocateChannels(kernel, this.parts.channels.length);
    this.#unpacker = new PageUnpacker(kernel, this.#codecs);
    this.#buffers = allocateWindow(kernel);
    if (needsSide(this.parts)) this.#sideBuffers = allocateWindow(kernel);
    this.#batch = new PageBatch(kernel, batchCapacity);
    this.pageSlots = new PageSlots(kernel, batchCapacity);
  }

  /** Whether the Flow can be read more than once. */
  get isSeekable(): boolean {
    return this.#sources.every(({ size }) => size !== undefined);
  }

  /** What the Flow is read from. */
  get #sources(): readonly ByteSource[] {
    const { channels, resumeOf, preempt } = this.parts;
    return [...resumeOf, this.source, ...preempt, ...channels];
  }

  /** Bytes that the Flow is read from; undefined if not all sources know their size. */
  get size(): number | undefined {
    const sizes = this.#sources.map(({ size }) => size);
    const sum = sizes.reduce<number>((total, size) => total + (size ?? Number.NaN), -this.offset);
    return Number.isNaN(sum) ? undefined : sum;
  }

  /** Bytes of them that reading has reached, for progress. */
  get reached(): number {
    if (this.#contentReached !== undefined) return this.#contentReached - this.offset;
    const ofCurrent = this.#reader === undefined ? 0 : this.#reader.reached - this.#start;
    return this.#passed + ofCurrent + (this.#channels?.reached ?? 0);
  }

  /**
   * What the latest Flow read of the channels, by their numbers, how they compress (null: no data yet), and which guest's
   * they say they are (undefined: there are none).
   */
  get channels(): { compression: string | null; list: ChannelReport[]; uuid: string | undefined } {
    const channels = this.#channels;
    return { compression: channels?.method ?? null, list: channels?.report() ?? [], uuid: channels?.uuid };
  }

  /** The source for whoever reads content where it lies: progress shows, and closing it leaves the file open. */
  get content(): ByteSource {
    const { source } = this;
    return {
      name: source.name,
      ...(source.coordinate === undefined ? {} : { coordinate: source.coordinate }),
      size: source.size,
      read: (target, position) => {
        this.#contentReached = position;
        return source.read(target, position);
      },
      close: async () => {},
    };
  }

  /**
   * Where in the source the byte lies that is at an arena address, while an item of the Flow refers to it; undefined if
   * it did not come from there as it is.
   */
  offsetOf(address: number): number | undefined {
    return this.#reader?.source === this.source ? this.#reader.offsetOf(address) : undefined;
  }

  /**
   * Reads the file from its beginning, item by item.
   * @throws MigrationError where the rest cannot be read; Error if a Flow of this file is still being read, or was
   *   read before from a source that cannot seek.
   */
  async *flow(options: FlowOptions = {}): AsyncGenerator<FlowItem, void> {
    if (this.#isReading) throw new Error(`${this.source.name} is being read already`);
    if (this.#reader !== undefined && !this.isSeekable) throw new Error(`${this.source.name} can be read only once`);
    this.#isReading = true;
    try {
      yield* this.#read(options);
    } finally {
      this.#isReading = false;
    }
  }

  async *#read({ read = 'pages' }: FlowOptions): AsyncGenerator<FlowItem, void> {
    for (const finding of this.#findings) yield { kind: 'finding', finding };
    if (this.source.size !== undefined) this.#sizes ??= await readSizes(this.source, this.offset);
    const hasChannels = this.parts.channels.length > 0;
    const options = { sizes: this.#sizes, read, hasChannels };
    const state = makeStreamState(this.#batch, options);
    this.#passed = 0;
    this.#reader = undefined;
    this.#contentReached = undefined;
    const channels = this.#openChannels(state, read);
    try {
      await channels?.begin();
      for (const source of this.parts.resumeOf) yield* this.#readBroken(source, state, options);
      yield* this.#announce(this.source);
      const reader = this.#open(this.source, this.#buffers, this.offset);
      const { window } = reader;
      const isFirst = this.parts.resumeOf.length === 0;
      const decoder = isFirst ? decodeStream(window, this.#batch, options, state) : decodeRecovery(window, state);
      for await (const item of drive<FlowItem>(reader, decoder)) {
        if (item.kind === 'pages' && !state.ram.postcopy) channels?.checkMainPages(item, window);
        if (item.kind === 'pages' && read === 'pages') yield* this.#unpacker.unpack(item);
        else if (item.kind === 'sync' && channels !== undefined) {
          yield* channels.epoch({ ...window.place(item.offset), section: 'ram' });
          yield { ...item, channels: this.parts.channels.length };
        } else {
          if (item.kind === 'configuration') channels?.checkConfiguration(item.configuration);
          if (item.kind === 'eof' && channels !== undefined) yield* channels.end();
          if (item.kind === 'end') yield* this.#finish(reader, state, item.offset);
          yield item;
        }
      }
    } finally {
      await channels?.close();
    }
  }

  #openChannels({ ram }: StreamState, read: 'pages' | 'bitmaps'): ChannelSet | undefined {
    const { channels } = this.parts;
    if (channels.length === 0) return undefined;
    const context = { ram, batch: this.#batch, room: this.#unpacker.room, read };
    this.#channels = new ChannelSet(this.kernel, channels, this.#channelBuffers, this.#codecs, context);
    return this.#channels;
  }

  #open(source: ByteSource, buffers: WindowBuffers, offset = 0): WindowReader {
    if (this.#reader !== undefined) this.#passed += this.#reader.reached - this.#start;
    this.#start = offset;
    this.#reader = new WindowReader(this.kernel, buffers, source, offset);
    return this.#reader;
  }

  /** Says which source is being read from now on, where there is more than one stream. */
  *#announce(source: ByteSource): Generator<FlowItem, void> {
    const { resumeOf, preempt } = this.parts;
    if (resumeOf.length + preempt.length > 0) yield { kind: 'source', origin: originOf(source) };
  }

  /** What comes after the stream's last byte. */
  async *#finish(reader: WindowReader, state: StreamState, end: number): AsyncGenerator<FlowItem, void> {
    const finding = await examineTrailing(reader, end);
    if (finding !== undefined) yield { kind: 'finding', finding };
    for (const source of this.parts.preempt) yield* this.#readPreempt(source, state);
    yield* this.#announce(this.source);
  }

  /** Reads a stream up to where it breaks off, which must be after the switchover: before, it cannot be recovered. */
  async *#readBroken(source: ByteSource, state: StreamState, options: StreamOptions): AsyncGenerator<FlowItem, void> {
    yield* this.#announce(source);
    const reader = this.#open(source, this.#buffers);
    const { window } = reader;
    const isFirst = source === this.parts.resumeOf[0];
    const decoder = isFirst ? decodeStream(window, this.#batch, options, state) : decodeRecovery(window, state);
    try {
      for await (const item of drive<FlowItem>(reader, decoder)) {
        if (item.kind === 'pages' && options.read === 'pages') yield* this.#unpacker.unpack(item);
        else yield item;
      }
    } catch (error) {
      if (!(error instanceof MigrationError) || error.code !== 'truncated' || !state.switchedOver) throw error;
      yield { kind: 'finding', finding: makeFinding('broken-off', 'the stream breaks off here', error.place) };
      return;
    }
    throw new MigrationError('mismatched-source', 'expected a stream that breaks off in postcopy', window.place());
  }

  /** Reads a preempt channel. That of a stream that broke off may break off too. */
  async *#readPreempt(source: ByteSource, state: StreamState): AsyncGenerator<FlowItem, void> {
    const { preempt, resumeOf } = this.parts;
    yield* this.#announce(source);
    const reader = this.#open(source, this.#sideBuffers as WindowBuffers);
    if (!state.switchedOver) {
      const message = 'a preempt channel of a stream that never switched over to postcopy';
      throw new MigrationError('mismatched-source', message, reader.window.place());
    }
    const streams = resumeOf.length + 1;
    const mayBreak = streams > 1 && (preempt.length < streams || source !== preempt.at(-1));
    try {
      yield* drive<FlowItem>(reader, decodePreemptChannel(reader.window, state.ram, this.#batch));
    } catch (error) {
      if (!mayBreak || !(error instanceof MigrationError) || error.code !== 'truncated') throw error;
      yield { kind: 'finding', finding: makeFinding('broken-off', 'the preempt channel breaks off here', error.place) };
    }
  }

  /**
   * Reads a return path, message by message; the Flow has been read before.
   * @throws MigrationError where the rest cannot be read.
   */
  async *returnMessages(source: ByteSource): AsyncGenerator<ReturnMessage, void> {
    if (this.#sideBuffers === undefined) throw new RangeError('expected a return path that the file was opened with');
    const reader = new WindowReader(this.kernel, this.#sideBuffers, source, 0);
    yield* drive<ReturnMessage>(reader, decodeReturnPath(reader.window));
  }

  async close(): Promise<void> {
    await this.#reader?.settle();
    await this.#channels?.close();
    for (const source of [...this.#sources, ...this.parts.returnPath]) await source.close();
  }
}

/** Whether something is read while the window of the file is still in use. */
const needsSide = ({ preempt, returnPath }: PartLists) => preempt.length + returnPath.length > 0;

/**
 * Opens a source: a stream, or what contains one. If that fails, the source is closed, and so are its parts.
 * @throws RangeError for an impossible offset, more channels than there can be, and a qcow2 image of which no snapshot
 *   was named (SnapshotError); MigrationError for a container that cannot be read; MissingDecompressorError
 */
export async function openFile(source: ByteSource, options: OpenOptions = {}): Promise<MigrationFile> {
  const { offset = 0, variant, spareBytes = 0 } = options;
  const given = listParts(options);
  let opened = source;
  try {
    if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
    const findChannels = given.channels.length === 0;
    requireChannelCount(given.channels.length);
    const located = await locateStream(source, offset, { ...options, findChannels }, (outermost) => {
      opened = outermost;
    });
    const channels = findChannels ? located.channels : given.channels;
    requireChannelCount(channels.length);
    const parts = { ...given, channels };
    const ofParts = channelArenaBytes(channels.length) + (needsSide(parts) ? sideBytes : 0);
    const wanted = { arenaBytes: arenaBytes + ofParts + spareBytes };
    const kernel = await loadKernel(variant === undefined ? wanted : { ...wanted, variant });
    return new MigrationFile(source, located, kernel, { ...options, channels });
  } catch (error) {
    for (const each of [opened, ...Object.values(given).flat()]) await each.close();
    throw error;
  }
}

function requireChannelCount(count: number): void {
  if (count > maxChannels) throw new RangeError(`expected at most ${maxChannels} channels, got ${count}`);
}
