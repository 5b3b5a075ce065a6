/** The bytes that the view shows. They are read in pieces when they come into sight, and the last few MiB are kept. */
import { signal } from '@preact/signals';
import type { CallOptions } from '../protocol.ts';
import { Task } from './task.ts';

/** A source of bytes. */
interface ByteReader {
  /** Size in bytes. Undefined if it is not known. */
  size: number | undefined;
  /** Returns fewer than `length` bytes at the end. */
  read(offset: number, length: number, options: CallOptions): Promise<Uint8Array>;
}

const pieceBytes = 64 << 10;
const keptPieces = 64;

export class ByteCache {
  readonly reader: ByteReader;
  /** Increases when new bytes arrive. */
  readonly revision = signal(0);
  readonly reading = new Task<Uint8Array>();
  /** Whether the user cancelled the reading. Nothing more is read until {@link resume}. */
  readonly isStopped = signal(false);
  readonly #pieces = new Map<number, Uint8Array>();
  #wanted: { offset: number; length: number } = { offset: 0, length: 0 };

  constructor(reader: ByteReader) {
    this.reader = reader;
  }

  /** Up to `length` bytes, if they are in the cache. The range must not cross a multiple of 64 KiB. */
  get(offset: number, length: number): Uint8Array | undefined {
    const piece = this.#pieces.get(Math.floor(offset / pieceBytes));
    const start = offset % pieceBytes;
    return piece?.subarray(start, start + length);
  }

  /** Reads the missing bytes of a range. It replaces the range of the call before. */
  want(offset: number, length: number): void {
    this.#wanted = { offset, length };
    const { kind } = this.reading.state.peek();
    if (this.isStopped.peek()) return;
    if (kind === 'idle' || kind === 'done') void this.#readOn();
  }

  /** Stops reading, also of what is wanted later. */
  stop(): void {
    this.isStopped.value = true;
    this.reading.cancel();
  }

  /** Reads what is wanted after {@link stop} or a failure. */
  resume(): void {
    this.isStopped.value = false;
    void this.#readOn();
  }

  end(): void {
    this.#wanted = { offset: 0, length: 0 };
    this.reading.cancel();
  }

  async #readOn(): Promise<void> {
    for (;;) {
      const number = this.#missing();
      if (number === undefined) return;
      const offset = number * pieceBytes;
      const bytes = await this.reading.run((options) => this.reader.read(offset, pieceBytes, options));
      if (bytes === undefined) return;
      this.#keep(number, bytes);
    }
  }

  #missing(): number | undefined {
    const { offset, length } = this.#wanted;
    for (let number = Math.floor(offset / pieceBytes); number * pieceBytes < offset + length; number++) {
      if (!this.#pieces.has(number)) return number;
    }
    return undefined;
  }

  #keep(number: number, bytes: Uint8Array): void {
    for (const oldest of this.#pieces.keys()) {
      if (this.#pieces.size < keptPieces) break;
      this.#pieces.delete(oldest);
    }
    this.#pieces.set(number, bytes);
    this.revision.value++;
  }
}
