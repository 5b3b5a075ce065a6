/**
 * Opens a migration file: finds out what can be known before reading it through, and gives its Flow.
 *
 * A migration may have come in several pieces: recoveries of a postcopy migration, and the preempt channel. Their Flow
 * is one. The pages of the preempt channel come last: the order of pages after the switchover is free, since each is
 * sent once, with the guest stopped at the source.
 */

import type { ByteSource } from '../io/byte-source.ts';
import { readFully } from '../io/byte-source.ts';
import { allocateWindow, drive, type WindowBuffers, WindowReader } from '../io/window-reader.ts';
import { type Kernel, type KernelVariant, loadKernel } from '../kernel/kernel.ts';
import { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding } from '../wire/migration-error.ts';
import { decodePreemptChannel } from '../wire/preempt.ts';
import { decodeReturnPath, type ReturnMessage } from '../wire/return-path.ts';
import { decodeRecovery, decodeStream, makeStreamState, type StreamState } from '../wire/stream.ts';
import { type DeviceSizes, findDescription, readDeviceSizes } from '../wire/vm-description.ts';
import { Staging } from './staging.ts';

/** What belongs to a migration beside its file. */
export interface Parts<Input = ByteSource> {
  /** The streams that broke off in postcopy before the file, which is then a recovery stream, in their order. */
  resumeOf?: Input | readonly Input[];
  /** Captures of the preempt channel, one for each stream that had one, in the same order. */
  preempt?: Input | readonly Input[];
  /** Captures of what the destination said, for display. */
  returnPath?: Input | readonly Input[];
}

export interface OpenOptions<Input = ByteSource> extends Parts<Input> {
  /** Where the stream begins in the source, in bytes. Default 0. */
  offset?: number;
  /** Which build of the kernels. Default: SIMD where there is SIMD. */
  variant?: KernelVariant;
}

export interface FlowOptions {
  /** `bitmaps`: of a mapped-ram file read only what pages there are, not the pages. Default `pages`. */
  read?: 'pages' | 'bitmaps';
}

/** Page records gathered at a time. */
const batchCapacity = 4096;
/** The arena: two read buffers, page slots and tables. */
const arenaBytes = 4 << 20;
/** Room for two more read buffers. */
const sideBytes = 9 << 18;
/** How far from the end the description is looked for: first the common case, then the largest. */
const tailLengths = [256 * 1024, 16 << 20];
/** How long is waited for something to follow the stream. */
const trailingWaitMs = 1000;
/** How much of what follows the stream is looked at. */
const trailingLimit = 64 << 20;

/** A migration stream or mapped-ram file that was opened. One Flow is read at a time. */
export class MigrationFile {
  readonly source: ByteSource;
  /** Where the stream begins in the source. */
  readonly offset: number;
  readonly kernel: Kernel;
  /** Shared by the stores that take this file's pages. */
  readonly staging: Staging;
  /** The streams that the file resumes, its preempt channels, and its return paths. */
  readonly resumed: readonly ByteSource[];
  readonly preempt: readonly ByteSource[];
  readonly returnPaths: readonly ByteSource[];
  readonly #batch: PageBatch;
  readonly #buffers: WindowBuffers;
  /** For what is read while the window of the file is still in use. */
  readonly #sideBuffers: WindowBuffers | undefined;
  #sizes: DeviceSizes | undefined;
  #reader: WindowReader | undefined;
  #isReading = false;
  /** Bytes of the sources that were read before the current one, and where that began. */
  #passed = 0;
  #start = 0;

  constructor(source: ByteSource, offset: number, kernel: Kernel, parts: Parts = {}) {
    this.source = source;
    this.offset = offset;
    this.kernel = kernel;
    this.resumed = listOf(parts.resumeOf);
    this.preempt = listOf(parts.preempt);
    this.returnPaths = listOf(parts.returnPath);
    this.#buffers = allocateWindow(kernel);
    if (this.preempt.length + this.returnPaths.length > 0) this.#sideBuffers = allocateWindow(kernel);
    this.#batch = new PageBatch(kernel, batchCapacity);
    this.staging = new Staging(kernel, batchCapacity, source.name);
  }

  /** Whether the Flow can be read more than once. */
  get isSeekable(): boolean {
    return this.#sources.every(({ size }) => size !== undefined);
  }

  get #sources(): readonly ByteSource[] {
    return [...this.resumed, this.source, ...this.preempt];
  }

  /** Bytes that the Flow is read from; undefined if not all sources know their size. */
  get size(): number | undefined {
    const sizes = this.#sources.map(({ size }) => size);
    const sum = sizes.reduce<number>((total, size) => total + (size ?? Number.NaN), -this.offset);
    return Number.isNaN(sum) ? undefined : sum;
  }

  /** Bytes of them that reading has reached, for progress. */
  get reached(): number {
    return this.#passed + (this.#reader === undefined ? 0 : this.#reader.reached - this.#start);
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
    if (this.isSeekable) this.#sizes ??= await readSizes(this.source, this.offset);
    const { read = 'pages' } = options;
    const state = makeStreamState(this.#batch, { sizes: this.#sizes, read });
    this.#passed = 0;
    this.#reader = undefined;
    for (const source of this.resumed) yield* this.#readBroken(source, state);
    yield* this.#announce(this.source);
    const reader = this.#open(this.source, this.#buffers, this.offset);
    const { window } = reader;
    const decoder =
      this.resumed.length === 0 ? decodeStream(window, this.#batch, {}, state) : decodeRecovery(window, state);
    for await (const item of drive<FlowItem>(reader, decoder)) {
      if (item.kind === 'end') {
        const finding = await examineTrailing(reader, item.offset);
        if (finding !== undefined) yield { kind: 'finding', finding };
        for (const source of this.preempt) yield* this.#readPreempt(source, state);
        yield* this.#announce(this.source);
      }
      yield item;
    }
  }

  #open(source: ByteSource, buffers: WindowBuffers, offset = 0): WindowReader {
    this.#passed = this.reached;
    this.#start = offset;
    this.#reader = new WindowReader(this.kernel, buffers, source, offset);
    return this.#reader;
  }

  /** Says which source is being read from now on, where there is more than one. */
  *#announce(source: ByteSource): Generator<FlowItem, void> {
    this.staging.source = source.name;
    if (this.#sources.length > 1) yield { kind: 'source', source: source.name };
  }

  /** Reads a stream up to where it breaks off, which must be after the switchover: before, it cannot be recovered. */
  async *#readBroken(source: ByteSource, state: StreamState): AsyncGenerator<FlowItem, void> {
    yield* this.#announce(source);
    const reader = this.#open(source, this.#buffers);
    const { window } = reader;
    const isFirst = source === this.resumed[0];
    const decoder = isFirst ? decodeStream(window, this.#batch, {}, state) : decodeRecovery(window, state);
    try {
      yield* drive<FlowItem>(reader, decoder);
    } catch (error) {
      if (!(error instanceof MigrationError) || error.code !== 'truncated' || !state.switchedOver) throw error;
      yield { kind: 'finding', finding: makeFinding('broken-off', 'the stream breaks off here', error.place) };
      return;
    }
    throw new MigrationError('mismatched-source', 'expected a stream that breaks off in postcopy', window.place());
  }

  /** Reads a preempt channel. That of a stream that broke off may break off too. */
  async *#readPreempt(source: ByteSource, state: StreamState): AsyncGenerator<FlowItem, void> {
    yield* this.#announce(source);
    const reader = this.#open(source, this.#sideBuffers as WindowBuffers);
    if (!state.switchedOver) {
      const message = 'a preempt channel of a stream that never switched over to postcopy';
      throw new MigrationError('mismatched-source', message, reader.window.place());
    }
    const streams = this.resumed.length + 1;
    const mayBreak = streams > 1 && (this.preempt.length < streams || source !== this.preempt.at(-1));
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
    for (const source of [...this.#sources, ...this.returnPaths]) await source.close();
  }
}

function listOf<Input>(inputs: Input | readonly Input[] | undefined): readonly Input[] {
  return inputs === undefined ? [] : Array.isArray(inputs) ? inputs : [inputs as Input];
}

/** The parts with each input replaced by what `open` makes of it. */
export async function mapParts<Input, Output>(
  parts: Parts<Input>,
  open: (input: Input) => Output | Promise<Output>,
): Promise<Required<Parts<Output>>> {
  const openAll = async (inputs: Input | readonly Input[] | undefined) => {
    const outputs: Output[] = [];
    for (const input of listOf(inputs)) outputs.push(await open(input));
    return outputs;
  };
  const { resumeOf, preempt, returnPath } = parts;
  return { resumeOf: await openAll(resumeOf), preempt: await openAll(preempt), returnPath: await openAll(returnPath) };
}

/** Opens a source. @throws RangeError for an impossible offset. */
export async function openFile(source: ByteSource, options: OpenOptions = {}): Promise<MigrationFile> {
  const { offset = 0, variant, ...parts } = options;
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
  const hasSide = listOf(parts.preempt).length + listOf(parts.returnPath).length > 0;
  const size = { arenaBytes: arenaBytes + (hasSide ? sideBytes : 0) };
  const kernel = await loadKernel(variant === undefined ? size : { ...size, variant });
  return new MigrationFile(source, offset, kernel, parts);
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
  while (isZero && seen < trailingLimit) {
    // The writer of a pipe may stay silent after the end.
    if (window.available === 0) await reader.satisfyWithin({ kind: 'more', bytes: 1 }, trailingWaitMs);
    const bytes = window.bytes.subarray(window.position, window.limit);
    if (bytes.length === 0) break;
    isZero = bytes.every((byte) => byte === 0);
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
