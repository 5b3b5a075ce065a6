/**
 * Drives a decoder: satisfies its needs from a ByteSource, through two buffers in the arena. One buffer is decoded while the
 * other is being read, so the decoder waits only at the end of a buffer.
 *
 *     buffer   |.....head.....|..............body..............|
 *                        ^tail of the other buffer, copied here so that no record is cut
 */

import type { ByteSource } from '../io/byte-source.ts';
import { settledWithin } from '../io/time-limit.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { ByteWindow, maxNeed, type Need } from '../wire/byte-window.ts';

/** Bytes read at a time by default. */
const defaultBodyBytes = 1 << 20;

/** Bytes read where it is not known how many are needed, if the source is remote. They double as reading goes on. */
const firstProbe = 8 * 1024;

/** Two buffers in the arena. */
export interface WindowBuffers {
  /** Arena addresses where their bodies begin. */
  readonly bodies: readonly [number, number];
  /** Bytes of each body, and of each read. */
  readonly bodyBytes: number;
}

/** Allocates both buffers from the arena: {@link windowArenaBytes} bytes. */
export function allocateWindow(kernel: Kernel, bodyBytes = defaultBodyBytes): WindowBuffers {
  const buffer = () => kernel.allocate(maxNeed + bodyBytes) + maxNeed;
  return { bodies: [buffer(), buffer()], bodyBytes };
}

/** Bytes of arena that the buffers of a window take. */
export const windowArenaBytes = (bodyBytes = defaultBodyBytes): number =>
  arenaBytes(maxNeed + bodyBytes, maxNeed + bodyBytes);

interface PendingRead {
  buffer: number;
  offset: number;
  /** Bytes that were asked for. */
  length: number;
  count: Promise<number>;
}

/** A window that moves over a source. */
export class WindowReader {
  readonly window: ByteWindow;
  readonly source: ByteSource;
  readonly #bodies: readonly [number, number];
  readonly #bodyBytes: number;
  /** The buffer that the window is in: 0 or 1. */
  #current = 0;
  /** Index of the first byte of the current buffer that belongs to the window. */
  #firstValid = 0;
  /** Read-ahead into the other buffer. */
  #pending: PendingRead | undefined;
  /** Source offset after the window's limit. */
  #next: number;
  /** Offset up to which bytes will be needed: nothing beyond it is read ahead. */
  #horizon = Number.POSITIVE_INFINITY;
  /** Bytes of the next read. Undefined: the whole body. */
  #probe: number | undefined;
  readonly #seeks: boolean;

  /** `seeks`: the decoder will not need everything that follows `offset`. Default false. */
  constructor(kernel: Kernel, buffers: WindowBuffers, source: ByteSource, offset: number, { seeks = false } = {}) {
    this.source = source;
    this.#bodies = buffers.bodies;
    this.#bodyBytes = buffers.bodyBytes;
    this.window = new ByteWindow(kernel.bytes, source.name);
    if (source.size !== undefined) this.window.size = source.size;
    if (source.coordinate !== undefined) this.window.coordinate = source.coordinate;
    this.window.isRemote = source.willRead !== undefined;
    this.#seeks = seeks;
    this.#next = offset;
    this.#announce(undefined);
    this.#place(offset, this.#bodies[0], this.#bodies[0]);
  }

  /** Source offset up to which bytes have been requested. */
  get reached(): number {
    return this.#next;
  }

  /** The source offset of the byte at an arena address; undefined if the address is not in the window. */
  offsetOf(address: number): number | undefined {
    return address >= this.#firstValid && address < this.window.limit ? address + this.window.base : undefined;
  }

  /** Like {@link satisfy}, but stops waiting after `ms` milliseconds. Afterwards nothing more can be read. */
  async satisfyWithin(need: Need, ms: number): Promise<void> {
    await settledWithin(this.satisfy(need), ms);
  }

  /** Makes the bytes available that a decoder needs, or sets the window's `ended`. @throws the source's error */
  async satisfy(need: Need): Promise<void> {
    if (need.kind === 'seek') await this.#seek(need.offset, need.length);
    else await this.#fill(need.bytes);
  }

  /**
   * Waits for a pending read. Afterwards nothing writes to the arena. It does not wait for a source that can only be
   * read forward, because such a source may stay silent forever. The buffers must then not be used again.
   */
  async settle(): Promise<void> {
    const pending = this.#pending;
    this.#pending = undefined;
    if (this.source.size !== undefined) await pending?.count.catch(() => 0);
  }

  /** Waits until nothing is written to the buffers any more: its source was broken. They can then be used again. */
  async release(): Promise<void> {
    const pending = this.#pending;
    this.#pending = undefined;
    await pending?.count.catch(() => 0);
  }

  #place(offset: number, position: number, limit: number): void {
    const { window } = this;
    window.position = position;
    window.limit = limit;
    window.base = offset - position;
  }

  async #seek(offset: number, length: number | undefined): Promise<void> {
    const { window } = this;
    const end = length === undefined ? undefined : offset + length;
    const position = offset - window.base;
    // Bytes before the position are still there, back to the start of the buffer's valid part.
    if (position >= this.#firstValid && position <= window.limit) {
      window.position = position;
      this.#announce(end);
      return;
    }
    if (this.source.size === undefined) {
      this.#announce(end);
      await this.#passTo(offset);
      return;
    }
    if (await this.#seekAhead(offset)) {
      this.#announce(end);
      return;
    }
    await this.settle();
    window.ended = false;
    this.#next = offset;
    this.#announce(end);
    const body = this.#bodies[this.#current] as number;
    this.#place(offset, body, body);
    this.#firstValid = body;
  }

  /** Goes to an offset whose bytes are being read ahead, so that they are not read twice. Returns whether it could. */
  async #seekAhead(offset: number): Promise<boolean> {
    const pending = this.#pending;
    if (pending === undefined || offset < pending.offset || offset >= pending.offset + pending.length) return false;
    // A failure is not needed here: it occurs again where the bytes are.
    const count = await pending.count.catch(() => 0);
    if (offset >= pending.offset + count) return false;
    const { window } = this;
    this.#pending = undefined;
    window.position = window.limit;
    this.#adopt(pending, count);
    window.position = offset - window.base;
    return true;
  }

  /** Notes up to which offset bytes will be needed, if it is known, and announces it to a remote source. */
  #announce(end: number | undefined): void {
    this.#horizon = end ?? Number.POSITIVE_INFINITY;
    if (!this.window.isRemote) return;
    this.#probe = end === undefined && this.#seeks ? firstProbe : undefined;
    if (this.#probe === undefined && this.#horizon > this.#next) this.source.willRead?.(this.#next, this.#horizon);
  }

  /** Moves forward by reading, because bytes that were read ahead cannot be read again. */
  async #passTo(offset: number): Promise<void> {
    const { window } = this;
    if (offset < window.offset)
      throw new RangeError(`${window.source}: expected no offset below ${window.offset}, got ${offset}`);
    while (window.base + window.limit < offset && !window.ended) {
      window.position = window.limit;
      await this.#fill(1);
    }
    window.position = Math.min(window.limit, offset - window.base);
  }

  async #fill(bytes: number): Promise<void> {
    if (bytes > maxNeed) throw new RangeError(`expected a need of at most ${maxNeed} bytes, got ${bytes}`);
    const { window } = this;
    // The horizon was a hint: a decoder may need more.
    if (window.offset + bytes > this.#horizon) this.#announce(undefined);
    while (window.available < bytes && !window.ended) {
      const pending = this.#pending ?? this.#read(this.#next);
      this.#pending = undefined;
      const count = await pending.count;
      if (count === 0) {
        window.ended = true;
        return;
      }
      this.#adopt(pending, count);
      if (this.#next < this.#horizon && this.#probe === undefined) this.#pending = this.#read(this.#next);
    }
  }

  /** Moves the window to the buffer that was read, with its unread tail in front. */
  #adopt(read: PendingRead, count: number): void {
    const { window } = this;
    const body = this.#bodies[read.buffer] as number;
    const tail = window.available;
    const offset = window.offset;
    window.bytes.copyWithin(body - tail, window.position, window.limit);
    this.#current = read.buffer;
    this.#next = read.offset + count;
    this.#firstValid = body - tail;
    this.#place(offset, body - tail, body + count);
  }

  /** Starts a read into the buffer that the window is not in. */
  #read(offset: number): PendingRead {
    const buffer = 1 - this.#current;
    const body = this.#bodies[buffer] as number;
    const length = this.#readLength(offset);
    const target = this.window.bytes.subarray(body, body + length);
    const count = (async () => this.source.read(target, offset))();
    // A failure is reported where the bytes are needed, not as an unhandled rejection.
    count.catch(() => {});
    return { buffer, offset, length, count };
  }

  #readLength(offset: number): number {
    if (this.#probe === undefined) return Math.min(this.#bodyBytes, Math.max(this.#horizon - offset, 4096));
    const length = Math.min(this.#bodyBytes, this.#probe);
    this.#probe = 2 * length;
    return length;
  }
}

/** Runs a decoder over the window of a reader, and yields its items. */
export async function* drive<Item>(
  reader: WindowReader,
  decoder: Generator<Need | Item, void>,
): AsyncGenerator<Item, void> {
  try {
    for (const step of decoder) {
      if (isNeed(step)) await reader.satisfy(step);
      else yield step;
    }
  } finally {
    await reader.settle();
  }
}

/** Whether a step of a decoder is a need, not an item. */
export function isNeed(step: unknown): step is Need {
  const { kind } = step as { kind: string };
  return kind === 'more' || kind === 'seek';
}
