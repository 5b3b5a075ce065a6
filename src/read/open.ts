/**
 * Opens a migration file: finds everything that can be known before the file is read, and provides its Flow.
 *
 * The captures of one migration may be several files: multifd channels, the streams before a recovery, and preempt
 * channels. They have one Flow. Pages of multifd channels come before their mark. Pages of a preempt channel come last:
 * after the switchover the source sends each page once, so their order does not matter.
 */

import { type Abortable, orAborted, ReadGuard } from '../io/abort.ts';
import { announcements, type ByteSource, originOf } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { PortableCodecs } from '../io/portable-codecs.ts';
import { type SpoolOptions, spoolSource } from '../io/spool.ts';
import type { Kernel, KernelVariant } from '../kernel/kernel.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { type AutoClosed, asyncDispose } from '../vm/auto-closed.ts';
import type { FlowItem } from '../vm/flow.ts';
import { kindOf } from '../vm/kind-of.ts';
import type { Finding, MigrationError } from '../vm/migration-error.ts';
import { decodeReturnPath, type ReturnMessage } from '../wire/return-path.ts';
import type { DeviceSizes } from '../wire/vm-description.ts';
import { type ChannelReport, maxChannels } from './channels.ts';
import { type Container, type ContainerOptions, type Located, locateStream } from './container/container.ts';
import { type FileFormat, findFormat } from './file-format.ts';
import { FlowBuffers, FlowReader, type FlowSources, flowArenaBytes, flowBatchCapacity } from './flow-reader.ts';
import { listParts, mapParts, type PartLists, type Parts } from './parts.ts';
import { examineTrailing, readSizes } from './stream-end.ts';
import { drive, WindowReader } from './window-reader.ts';

export interface OpenOptions<Input = ByteSource> extends Parts<Input>, ContainerOptions, SpoolOptions, Abortable {
  /** Offset of the stream, or of the container around it, in the source, in bytes. Default 0. */
  offset?: number;
  /** The build of the kernels. Default: SIMD if the platform has it. */
  variant?: KernelVariant;
  /** Decompresses pages. Default: the platform's fastest codecs. */
  codecs?: PageCodecs;
  /** Bytes of arena beyond those for reading, for a writer on the same kernel (`writerArenaBytes`). Default 0. */
  spareBytes?: number;
}

/** How a Flow is read. */
export interface FlowOptions {
  /**
   * `bitmaps`: only which pages exist. Pages of a mapped-ram file are not read, pages of multifd channels have no data,
   * and compressed pages stay compressed. Default `pages`.
   */
  read?: 'pages' | 'bitmaps';
  /**
   * Read as much as possible of a file that breaks off or is damaged. An error that would end the reading becomes a
   * finding, and the reading goes on behind the damage where it can. Pages that were lost there are discarded. Default
   * false.
   */
  partial?: boolean;
}

/** The known facts about a file before it is read. */
export interface OpenedStream extends Located {
  format: FileFormat | undefined;
  /** The error for a file of another kind. */
  foreign?: MigrationError;
}

/** What a Flow has read from its multifd channels, see {@link MigrationFile.channels}. */
export interface FlowChannels {
  compression: string | undefined;
  list: ChannelReport[];
  uuid: string | undefined;
  numbers: { isReliable: boolean; hasGaps: boolean };
}

/** An open migration stream or mapped-ram file. Its Flow can be read by one reader at a time. */
export class MigrationFile implements AutoClosed {
  /** The source that was opened. */
  readonly input: ByteSource;
  /** The source of the stream: the input, or a source that decompresses it or collects it from clusters. */
  readonly source: ByteSource;
  /** Offset of the stream in `source`, in bytes. */
  readonly offset: number;
  /** Undefined if the first bytes are unreadable. Reading the Flow then reports the reason. */
  readonly format: FileFormat | undefined;
  /** The containers around the stream, outermost first. */
  readonly containers: readonly Container[];
  readonly kernel: Kernel;
  /** Shared by all stores that take this file's pages. */
  readonly pageSlots: PageSlots;
  /** The other sources that belong to the migration. */
  readonly parts: PartLists;
  readonly #findings: readonly Finding[];
  readonly #foreign: MigrationError | undefined;
  readonly #buffers: FlowBuffers;
  #flow: FlowReader | undefined;
  #sizes: DeviceSizes | undefined;
  #contentReached: number | undefined;
  #isReading = false;

  /** Allocates its buffers in the arena of `kernel`, see `openFile`. */
  constructor(
    input: ByteSource,
    { source, offset, format, containers, findings, foreign }: OpenedStream,
    kernel: Kernel,
    options: OpenOptions,
  ) {
    this.input = input;
    this.source = source;
    this.offset = offset;
    this.format = format;
    this.containers = containers;
    this.#findings = findings;
    this.#foreign = foreign;
    this.kernel = kernel;
    this.parts = listParts(options);
    this.#buffers = new FlowBuffers(kernel, options.codecs ?? new PortableCodecs(), sourcesOf(this.parts));
    this.pageSlots = new PageSlots(kernel, flowBatchCapacity);
  }

  /** Whether the Flow can be read more than once. */
  get isSeekable(): boolean {
    return this.#sources.every(({ size }) => size !== undefined);
  }

  /** Whether reading a byte twice is expensive: a source is on a server. */
  get isRemote(): boolean {
    return this.#sources.some(({ willRead }) => willRead !== undefined);
  }

  /** All sources of the Flow. */
  get #sources(): readonly ByteSource[] {
    const { channels, resumeOf, preempt } = this.parts;
    return [...resumeOf, this.source, ...preempt, ...channels];
  }

  /** Bytes of all sources of the Flow. Undefined if a source does not know its size. */
  get size(): number | undefined {
    const sizes = this.#sources.map(({ size }) => size);
    const sum = sizes.reduce<number>((total, size) => total + (size ?? Number.NaN), -this.offset);
    return Number.isNaN(sum) ? undefined : sum;
  }

  /** How many of these bytes have been read, for progress. */
  get reached(): number {
    if (this.#contentReached !== undefined && !this.#isReading) return this.#contentReached - this.offset;
    return this.#flow?.reached ?? 0;
  }

  /**
   * What the latest Flow has read from the multifd channels: a report per channel, in the order of their numbers; their
   * compression (undefined before the first page data); their guest UUID (undefined without channels); and whether the
   * numbers of their packets have gaps. Since QEMU 9.0 a gap proves that a channel is missing.
   */
  get channels(): FlowChannels {
    const channels = this.#flow?.channels;
    return {
      compression: channels?.method,
      list: channels?.report() ?? [],
      uuid: channels?.uuid,
      numbers: channels?.numbers ?? { isReliable: false, hasGaps: false },
    };
  }

  /** The source for content that is read in place. `reached` follows its reads, and closing it leaves the file open. */
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
      ...announcements(source),
      close: async () => {},
    };
  }

  /**
   * The offset in `source` of the byte at an arena address, as long as an item of the Flow refers to it. Undefined if
   * that byte was not read directly from `source`.
   */
  offsetOf(address: number): number | undefined {
    return this.#flow?.offsetIn(this.source, address);
  }

  /**
   * The source of the multifd channel with a number, and the offset in it of the byte at an arena address, as long as an item of
   * the Flow refers to it. Undefined if that byte was not read directly from the channel.
   */
  locateInChannel(channel: number, address: number): { source: ByteSource; offset: number } | undefined {
    return this.#flow?.channels?.locate(channel, address);
  }

  /**
   * Reads the file from its beginning, item by item.
   * @throws MigrationError if the rest is unreadable; Error if another Flow of this file is still being read, or if the
   *   file can be read only once and has been read
   */
  async *flow({ read = 'pages', partial = false }: FlowOptions = {}): AsyncGenerator<FlowItem, void> {
    if (this.#isReading) throw new Error(`${this.source.name} is being read already`);
    if (this.#flow !== undefined && !this.isSeekable) throw new Error(`${this.source.name} can be read only once`);
    this.#isReading = true;
    // Each async generator that an item passes costs time, so this one does all the work.
    try {
      for (const finding of this.#findings) yield { kind: 'finding', finding };
      if (this.#foreign !== undefined) throw this.#foreign;
      if (this.source.size !== undefined) this.#sizes ??= await readSizes(this.source, this.offset);
      const { channels, resumeOf } = this.parts;
      const flow = new FlowReader(this.#buffers, { read, sizes: this.#sizes, channels, partial });
      this.#flow = flow;
      this.#contentReached = undefined;
      try {
        await flow.begin();
        for (const source of resumeOf) {
          yield* this.#announce(source);
          yield* flow.brokenStream(source);
        }
        yield* this.#announce(this.source);
        const atEnd = (reader: WindowReader, end: number) => this.#finish(flow, reader, end);
        const seeks = this.format === 'mapped-ram';
        yield* flow.stream(this.source, { offset: this.offset, seeks, atEnd });
      } catch (error) {
        if (!partial || !flow.isSalvageable(error)) throw error;
        yield { kind: 'finding', finding: error.toFinding() };
        yield { kind: 'end', offset: error.place.offset };
      } finally {
        await flow.close();
      }
    } finally {
      this.#isReading = false;
    }
  }

  *#announce(source: ByteSource): Generator<FlowItem, void> {
    const { resumeOf, preempt } = this.parts;
    if (resumeOf.length + preempt.length > 0) yield { kind: 'source', origin: originOf(source) };
  }

  /** Examines what follows the stream in its source, and reads the preempt channels. */
  async *#finish(flow: FlowReader, reader: WindowReader, end: number): AsyncGenerator<FlowItem, void> {
    const finding = await examineTrailing(reader, end);
    if (finding !== undefined) yield { kind: 'finding', finding };
    const { preempt, resumeOf } = this.parts;
    const streams = resumeOf.length + 1;
    for (const source of preempt) {
      yield* this.#announce(source);
      // The preempt channel of a stream that broke off may break off too. That of the last stream must not.
      const mayBreak = streams > 1 && (preempt.length < streams || source !== preempt.at(-1));
      yield* flow.preemptChannel(source, mayBreak);
    }
    yield* this.#announce(this.source);
  }

  /**
   * Reads a return path that the file was opened with, message by message. Read the Flow first.
   * @throws MigrationError if the rest is unreadable
   */
  async *returnMessages(source: ByteSource): AsyncGenerator<ReturnMessage, void> {
    const { side } = this.#buffers;
    if (side === undefined) throw new RangeError('expected a return path that the file was opened with');
    const reader = new WindowReader(this.kernel, side, source, 0);
    yield* drive<ReturnMessage>(reader, decodeReturnPath(reader.window));
  }

  /** Closes all sources. */
  async close(): Promise<void> {
    await this.#flow?.close();
    for (const source of [...this.#sources, ...this.parts.returnPath]) await source.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Whether a source is read while the window of the main stream is still in use. */
const sourcesOf = ({ channels, preempt, returnPath }: PartLists): FlowSources => ({
  channels: channels.length,
  hasSide: preempt.length + returnPath.length > 0,
});

/**
 * Opens a source: a stream, or a container with a stream in it. On failure it closes the source and the parts.
 * @throws RangeError for an invalid offset or more than 255 channels; SnapshotError for a qcow2 image without the name of
 *   a snapshot; MigrationError for a container that cannot be read; MissingDecompressorError
 */
export async function openFile(source: ByteSource, options: OpenOptions = {}): Promise<MigrationFile> {
  const { signal } = options;
  const guard = new ReadGuard();
  const input = guard.wrap(source);
  const parts = await mapParts(options, (part) => guard.wrap(part));
  const opening = openParts(input, { ...options, ...parts });
  try {
    const file = await orAborted(opening, signal);
    guards.set(file, guard);
    return file;
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    void opening.then((file) => file.close()).catch(() => {});
    for (const each of [source, ...Object.values(listParts(options)).flat()]) await each.close();
    throw error;
  }
}

const guards = new WeakMap<MigrationFile, ReadGuard>();

/**
 * Does work on files until a signal is aborted. Their reads then throw the signal's reason.
 * @throws the signal's reason; TypeError for options or files that are of another type
 */
export async function whileAllowed<Result>(
  options: Abortable,
  files: readonly MigrationFile[],
  work: () => Promise<Result>,
): Promise<Result> {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`expected an object with options as the last argument, got ${kindOf(options)}`);
  }
  files.forEach(requireFile);
  const { signal } = options;
  const [file, ...others] = files;
  if (signal === undefined) return work();
  if (file === undefined) return work();
  const rest = () => whileAllowed({ signal }, others, work);
  const guard = guards.get(file);
  return guard === undefined ? rest() : guard.during(signal, rest);
}

/** @throws TypeError for anything but an open file */
export function requireFile(file: unknown): void {
  if (file instanceof MigrationFile) return;
  throw new TypeError(`expected a file that open() returned, got ${kindOf(file)}`);
}

async function openParts(source: ByteSource, options: OpenOptions): Promise<MigrationFile> {
  const { offset = 0, variant, spareBytes = 0 } = options;
  const given = listParts(options);
  const opened: ByteSource[] = Object.values(given).flat();
  let main = source;
  /** Copies what cannot seek, if that is wanted. */
  const spooled = async (each: ByteSource, start: number) => {
    if (options.spool !== 'always' || each.size !== undefined) return each;
    const copy = await spoolSource(each, start, options);
    opened.push(copy);
    return copy;
  };
  try {
    if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
    if (source.size !== undefined && offset > 0 && offset >= source.size) {
      throw new RangeError(`expected an offset within ${source.name}, which has ${source.size} bytes, got ${offset}`);
    }
    const findChannels = given.channels.length === 0;
    requireChannelCount(given.channels.length);
    const located = await locateStream(source, offset, { ...options, findChannels }, (outermost) => {
      main = outermost;
    });
    const channels = findChannels ? located.channels : given.channels;
    requireChannelCount(channels.length);
    const parts = await mapParts({ ...given, channels }, (part) => spooled(part, 0));
    const stream = await spooled(located.source, located.offset);
    // A file with `resumeOf` is a recovery stream, which has no header. A mapped-ram file cannot be recovered.
    const found =
      parts.resumeOf.length > 0
        ? { source: stream, format: 'stream' as const }
        : await findFormat(stream, located.offset);
    const needs = [flowArenaBytes(sourcesOf(parts)), pageSlotsArenaBytes(flowBatchCapacity), spareBytes];
    const kernel = await loadKernelFor(needs, variant);
    return new MigrationFile(source, { ...located, ...found }, kernel, { ...options, ...parts });
  } catch (error) {
    for (const each of [main, ...opened]) await each.close();
    throw error;
  }
}

function requireChannelCount(count: number): void {
  if (count > maxChannels) throw new RangeError(`expected at most ${maxChannels} channels, got ${count}`);
}
