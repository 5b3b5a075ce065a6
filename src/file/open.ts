/**
 * Opens a migration file: finds out what can be known before reading it through, and gives its Flow.
 */

import type { ByteSource } from '../io/byte-source.ts';
import { originOf, readFully } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { PortableCodecs } from '../io/portable-codecs.ts';
import { allocateWindow, drive, type WindowBuffers, WindowReader } from '../io/window-reader.ts';
import { type Kernel, type KernelVariant, loadKernel } from '../kernel/kernel.ts';
import { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, makeFinding } from '../wire/migration-error.ts';
import { makeRamState, type RamState } from '../wire/ram-record.ts';
import { decodeStream } from '../wire/stream.ts';
import { type DeviceSizes, findDescription, readDeviceSizes } from '../wire/vm-description.ts';
import { allocateChannels, type ChannelReport, ChannelSet, channelArenaBytes, maxChannels } from './channels.ts';
import { type Container, type ContainerOptions, type Located, locateStream } from './container.ts';
import { Staging } from './staging.ts';
import { PageUnpacker, unpackArenaBytes } from './unpack.ts';

export interface OpenOptions extends ContainerOptions {
  /** Where the stream, or what it is in, begins in the source, in bytes. Default 0. */
  offset?: number;
  /** Which build of the kernels. Default: SIMD where there is SIMD. */
  variant?: KernelVariant;
  /** The channels of a multifd migration whose main stream the source is: all of them, in any order. */
  channels?: readonly ByteSource[];
  /** What decompresses pages. Default: the platform's fastest. */
  codecs?: PageCodecs;
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
/** How far from the end the description is looked for: first the common case, then the largest. */
const tailLengths = [256 * 1024, 16 << 20];
/** How long is waited for something to follow the stream. */
const trailingWaitMs = 1000;
/** How much of what follows the stream is looked at. */
const trailingLimit = 64 << 20;

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
  readonly staging: Staging;
  /** The channels of a multifd migration; none: they are not known. */
  readonly channelSources: readonly ByteSource[];
  readonly #findings: readonly Finding[];
  readonly #batch: PageBatch;
  readonly #buffers: WindowBuffers;
  readonly #channelBuffers: readonly WindowBuffers[];
  readonly #codecs: PageCodecs;
  readonly #unpacker: PageUnpacker;
  #channels: ChannelSet | undefined;
  #sizes: DeviceSizes | undefined;
  #reader: WindowReader | undefined;
  #contentReached: number | undefined;
  #isReading = false;

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
    this.channelSources = options.channels ?? [];
    this.#codecs = options.codecs ?? new PortableCodecs();
    this.#channelBuffers = allocateChannels(kernel, this.channelSources.length);
    this.#unpacker = new PageUnpacker(kernel, this.#codecs, originOf(source));
    this.#buffers = allocateWindow(kernel);
    this.#batch = new PageBatch(kernel, batchCapacity);
    this.staging = new Staging(kernel, batchCapacity, source.name, source.coordinate);
  }

  /** Whether the Flow can be read more than once. */
  get isSeekable(): boolean {
    return [this.source, ...this.channelSources].every(({ size }) => size !== undefined);
  }

  /** Source offset that reading has reached, for progress; with channels, the bytes read of them are added. */
  get reached(): number {
    const reached = this.#contentReached ?? this.#reader?.reached ?? this.offset;
    return reached + (this.#channels?.reached ?? 0);
  }

  /** Bytes of the source and the channels; undefined if one can be read only once. */
  get size(): number | undefined {
    const sizes = [this.source, ...this.channelSources].map(({ size }) => size);
    return sizes.includes(undefined) ? undefined : sizes.reduce<number>((sum, size) => sum + (size as number), 0);
  }

  /** What the latest Flow read of the channels, by their numbers, and how they compress (null: no data yet). */
  get channels(): { compression: string | null; list: ChannelReport[] } {
    return { compression: this.#channels?.method ?? null, list: this.#channels?.report() ?? [] };
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
    return this.#reader?.offsetOf(address);
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

  async *#read(options: FlowOptions): AsyncGenerator<FlowItem, void> {
    for (const finding of this.#findings) yield { kind: 'finding', finding };
    if (this.source.size !== undefined) this.#sizes ??= await readSizes(this.source, this.offset);
    const read = options.read ?? 'pages';
    const ram = makeRamState();
    const channels = this.#openChannels(ram, read);
    try {
      await channels?.begin();
      const reader = new WindowReader(this.kernel, this.#buffers, this.source, this.offset);
      this.#reader = reader;
      this.#contentReached = undefined;
      const hasChannels = channels !== undefined;
      const decoder = decodeStream(reader.window, this.#batch, { sizes: this.#sizes, read, ram, hasChannels });
      for await (const item of drive<FlowItem>(reader, decoder)) {
        if (item.kind === 'pages' && read === 'pages') yield* this.#unpacker.unpack(item);
        else if (item.kind === 'sync' && hasChannels) {
          yield* channels.epoch({ ...reader.window.place(item.offset), section: 'ram' });
          yield { ...item, channels: this.channelSources.length };
        } else {
          if (item.kind === 'configuration') channels?.checkConfiguration(item.configuration);
          if (item.kind === 'eof' && hasChannels) yield* channels.end();
          if (item.kind === 'end') {
            const finding = await examineTrailing(reader, item.offset);
            if (finding !== undefined) yield { kind: 'finding', finding };
          }
          yield item;
        }
      }
    } finally {
      await channels?.close();
    }
  }

  #openChannels(ram: RamState, read: 'pages' | 'bitmaps'): ChannelSet | undefined {
    if (this.channelSources.length === 0) return undefined;
    const context = { ram, batch: this.#batch, room: this.#unpacker.room, read };
    this.#channels = new ChannelSet(this.kernel, this.channelSources, this.#channelBuffers, this.#codecs, context);
    return this.#channels;
  }

  async close(): Promise<void> {
    await this.#reader?.settle();
    await this.#channels?.close();
    for (const source of [this.source, ...this.channelSources]) await source.close();
  }
}

/**
 * Opens a source: a stream, or what contains one. If that fails, the source is closed, and so are its channels.
 * @throws RangeError for an impossible offset, more channels than there can be, and a qcow2 image of which no snapshot
 *   was named (SnapshotError); MigrationError for a container that cannot be read; MissingDecompressorError
 */
export async function openFile(source: ByteSource, options: OpenOptions = {}): Promise<MigrationFile> {
  const { offset = 0, variant, channels = [] } = options;
  let opened = source;
  try {
    if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
    if (channels.length > maxChannels) {
      throw new RangeError(`expected at most ${maxChannels} channels, got ${channels.length}`);
    }
    const located = await locateStream(source, offset, options, (outermost) => {
      opened = outermost;
    });
    const wanted = { arenaBytes: arenaBytes + channelArenaBytes(channels.length) };
    const kernel = await loadKernel(variant === undefined ? wanted : { ...wanted, variant });
    return new MigrationFile(source, located, kernel, options);
  } catch (error) {
    for (const each of [opened, ...channels]) await each.close();
    throw error;
  }
}

/** Looks for the description at the end of a source with random access. */
async function readSizes(source: ByteSource, offset: number): Promise<DeviceSizes | undefined> {
  const length = Math.max(0, (source.size ?? 0) - offset);
  for (const [i, tailLength] of tailLengths.entries()) {
    if (i > 0 && length <= (tailLengths[i - 1] as number)) break;
    const tail = new Uint8Array(Math.min(tailLength, length));
    await readFully(source, tail, offset + length - tail.length);
    const found = findDescription(trimZeros(tail));
    if (found !== undefined) return readDeviceSizes(found.value);
  }
  return undefined;
}

/** The bytes without zeros at the end: padding of what the stream was stored in. */
function trimZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}

/** Says what follows the end of the stream, if anything does; the reader has just reached it. */
async function examineTrailing(reader: WindowReader, end: number): Promise<Finding | undefined> {
  const { window } = reader;
  let seen = 0;
  let isZero = true;
  // Whether what is compressed is whole, its end tells.
  const toTheEnd = window.coordinate === 'decompressed';
  while ((isZero || toTheEnd) && seen < trailingLimit) {
    // The writer of a pipe may stay silent after the end.
    if (window.available === 0) await reader.satisfyWithin({ kind: 'more', bytes: 1 }, trailingWaitMs);
    const bytes = window.bytes.subarray(window.position, window.limit);
    if (bytes.length === 0) break;
    isZero &&= bytes.every((byte) => byte === 0);
    seen += bytes.length;
    window.position = window.limit;
  }
  if (seen === 0) return undefined;
  const count = Number.isFinite(window.size) ? `${Math.max(window.size - end, seen)}` : `at least ${seen}`;
  return isZero
    ? makeFinding(
        'trailing-zeros',
        `${count} bytes follow the end of the stream, zero as far as read`,
        window.place(end),
      )
    : makeFinding('trailing-data', `${count} bytes follow the end of the stream`, window.place(end));
}
