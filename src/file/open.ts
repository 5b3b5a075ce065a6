/**
 * Opens a migration file: finds out what can be known before reading it through, and gives its Flow.
 */

import type { ByteSource } from '../io/byte-source.ts';
import { readFully } from '../io/byte-source.ts';
import { allocateWindow, drive, type WindowBuffers, WindowReader } from '../io/window-reader.ts';
import { type Kernel, type KernelVariant, loadKernel } from '../kernel/kernel.ts';
import { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, makeFinding } from '../wire/migration-error.ts';
import { decodeStream } from '../wire/stream.ts';
import { type DeviceSizes, findDescription, readDeviceSizes } from '../wire/vm-description.ts';
import { Staging } from './staging.ts';

export interface OpenOptions {
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
  readonly #batch: PageBatch;
  readonly #buffers: WindowBuffers;
  #sizes: DeviceSizes | undefined;
  #reader: WindowReader | undefined;
  #contentReached: number | undefined;
  #isReading = false;

  constructor(source: ByteSource, offset: number, kernel: Kernel) {
    this.source = source;
    this.offset = offset;
    this.kernel = kernel;
    this.#buffers = allocateWindow(kernel);
    this.#batch = new PageBatch(kernel, batchCapacity);
    this.staging = new Staging(kernel, batchCapacity, source.name);
  }

  /** Whether the Flow can be read more than once. */
  get isSeekable(): boolean {
    return this.source.size !== undefined;
  }

  /** Source offset that reading has reached, for progress. */
  get reached(): number {
    return this.#contentReached ?? this.#reader?.reached ?? this.offset;
  }

  /** The source for whoever reads content where it lies: progress shows, and closing it leaves the file open. */
  get content(): ByteSource {
    const { source } = this;
    return {
      name: source.name,
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
    if (this.isSeekable) this.#sizes ??= await readSizes(this.source, this.offset);
    const reader = new WindowReader(this.kernel, this.#buffers, this.source, this.offset);
    this.#reader = reader;
    this.#contentReached = undefined;
    const decoder = decodeStream(reader.window, this.#batch, { sizes: this.#sizes, read: options.read ?? 'pages' });
    for await (const item of drive<FlowItem>(reader, decoder)) {
      if (item.kind === 'end') {
        const finding = await examineTrailing(reader, item.offset);
        if (finding !== undefined) yield { kind: 'finding', finding };
      }
      yield item;
    }
  }

  async close(): Promise<void> {
    await this.#reader?.settle();
    await this.source.close();
  }
}

/** Opens a source. @throws RangeError for an impossible offset. */
export async function openFile(source: ByteSource, options: OpenOptions = {}): Promise<MigrationFile> {
  const { offset = 0, variant } = options;
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
  const kernel = await loadKernel(variant === undefined ? { arenaBytes } : { arenaBytes, variant });
  return new MigrationFile(source, offset, kernel);
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
