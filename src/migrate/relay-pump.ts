/**
 * Copies the bytes of one direction of a line, through a ring. The next read goes on while a write is pending, and a
 * pending read never holds back bytes that are there.
 *
 *     head room |......written......|####read, not written####|......free......|
 *                                   ^ tail                    ^ head
 *
 * An empty ring begins at its start again, so that the bytes stay in the processor's cache. A decoder can look at the
 * bytes where they are: what it has not consumed when the ring begins again, it moves to the head room.
 */
import type { ByteSink } from '../io/byte-source.ts';
import type { Connection } from '../io/connection.ts';
import { maxNeed } from '../wire/byte-window.ts';

/** Bytes in front of a ring, for what a decoder has not consumed. */
const headRoom = maxNeed;

/** Sees the bytes of a direction. */
export interface Onlooker {
  /**
   * The next bytes go to this index of `memory`, the start of the ring. It is called before they are read, the first time
   * before any are.
   */
  restart(at: number): void;
  /** Bytes were read: those from `from` to `to` of `memory`. */
  see(from: number, to: number): void;
}

export interface PumpOptions {
  /** Bytes of the ring. Half of them are the most that is read or written at a time. */
  capacity: number;
  /** Makes what looks at the bytes, given the memory of the ring. Default: nothing does. */
  onlooker?: ((memory: Uint8Array<ArrayBuffer>) => Onlooker) | undefined;
  /** Waits until some of `bytes` may be written, and returns how many. Default: all of them, at once. */
  limit?: ((bytes: number) => Promise<number>) | undefined;
  /** Takes the bytes, too. They are passed on at the pace of the slower one. */
  copy?: (ByteSink & { end(): void }) | undefined;
  /** Whether a failure to read counts as a good end, because nothing that matters can follow. Default: it does not. */
  isEnd?: (() => boolean) | undefined;
  /** Called when bytes were read, or written. It may throw, which ends the pump. */
  onMove?: (() => void) | undefined;
}

/** Reading from a connection, or writing to it, failed. */
export class PumpFailure {
  /** Which of the two connections of the pump failed. */
  readonly end: 'from' | 'to';
  readonly error: unknown;

  constructor(end: 'from' | 'to', error: unknown) {
    this.end = end;
    this.error = error;
  }
}

export class Pump {
  /** Bytes that were read, and bytes that the other side has taken. */
  read = 0;
  written = 0;
  /** Bytes that were given to the other side: it may have taken them. */
  #offered = 0;
  /** The peer has ended this direction in good order. */
  hasEnded = false;
  readonly #from: Connection;
  readonly #to: Connection;
  readonly #options: PumpOptions;
  readonly #memory: Uint8Array<ArrayBuffer>;
  readonly #onlooker: Onlooker | undefined;
  /** Indexes of the memory: where the next bytes are read to, and the first that was not written. */
  #head = headRoom;
  #tail = headRoom;
  /** Bytes in the ring. */
  #filled = 0;
  #wake: () => void = () => {};

  constructor(from: Connection, to: Connection, options: PumpOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    this.#memory = new Uint8Array(headRoom + options.capacity);
    this.#onlooker = options.onlooker?.(this.#memory);
    this.#onlooker?.restart(headRoom);
  }

  /** Whether the other side may have all bytes before `end`. */
  mayHavePassed(end: number | undefined): boolean {
    return end !== undefined && this.#offered >= end;
  }

  /** Something was read, and not written yet. */
  get isBusy(): boolean {
    return this.read > this.written;
  }

  /**
   * Copies until the peer ends its direction. Everything has been written then.
   * @throws PumpFailure if one of the connections fails; whatever `onMove` throws
   */
  async run(): Promise<void> {
    await Promise.all([this.#readAll(), this.#writeAll()]);
    this.#options.copy?.end();
  }

  async #readAll(): Promise<void> {
    for (;;) {
      const length = await this.#space();
      const from = this.#head;
      const count = await this.#readFrom(from, length);
      if (count === 0) break;
      this.#head += count;
      this.#filled += count;
      this.read += count;
      this.#onlooker?.see(from, from + count);
      this.#options.onMove?.();
      this.#wake();
    }
    this.hasEnded = true;
    this.#options.onMove?.();
    this.#wake();
  }

  /** Waits for space behind the head. Returns its length, at most half of the ring. */
  async #space(): Promise<number> {
    const { capacity } = this.#options;
    const end = this.#memory.length;
    while (this.#filled === capacity) await this.#changed();
    if (this.#head === end || (this.#filled === 0 && this.#head > headRoom)) {
      this.#onlooker?.restart(headRoom);
      this.#head = headRoom;
      if (this.#filled === 0) this.#tail = headRoom;
    }
    const isWrapped = this.#filled > 0 && this.#head <= this.#tail;
    return Math.min((isWrapped ? this.#tail : end) - this.#head, capacity / 2);
  }

  async #readFrom(from: number, length: number): Promise<number> {
    try {
      return await this.#from.read(this.#memory.subarray(from, from + length), this.read);
    } catch (error) {
      if (this.#options.isEnd?.() === true) return 0;
      throw new PumpFailure('from', error);
    }
  }

  async #writeAll(): Promise<void> {
    const { capacity } = this.#options;
    for (;;) {
      while (this.#filled === 0 && !this.hasEnded) await this.#changed();
      if (this.#filled === 0) return;
      if (this.#tail === this.#memory.length) this.#tail = headRoom;
      const length = await this.#allowed(Math.min(this.#filled, this.#memory.length - this.#tail, capacity / 2));
      await this.#write(this.#memory.subarray(this.#tail, this.#tail + length));
      this.#tail += length;
      this.#filled -= length;
      this.written += length;
      this.#options.onMove?.();
      this.#wake();
    }
  }

  #allowed(bytes: number): Promise<number> | number {
    return this.#options.limit?.(bytes) ?? bytes;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const { copy } = this.#options;
    this.#offered += bytes.length;
    const copied = copy?.write(bytes);
    try {
      await this.#to.write(bytes);
    } catch (error) {
      throw new PumpFailure('to', error);
    }
    await copied;
  }

  /** Waits until the other half of the pump has done something. Only one of them ever waits. */
  #changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
