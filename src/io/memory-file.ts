/** A sparse file in memory: a ByteStore for browsers, tests and small guests. */
import { type AutoClosed, asyncDispose } from '../vm/auto-closed.ts';
import type { ByteStore } from './byte-source.ts';

const chunkBytes = 64 * 1024;

export class MemoryFile implements ByteStore, AutoClosed {
  readonly name: string;
  #size: number;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(name = 'memory', content: Uint8Array = new Uint8Array()) {
    this.name = name;
    this.#size = 0;
    this.write(content, 0);
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes that it takes in memory, approximately. Holes take none. */
  get storedBytes(): number {
    return this.#chunks.size * chunkBytes;
  }

  read(target: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(target.length, this.#size - position));
    this.#eachPiece(position, count, (number, from, to, at) => {
      const chunk = this.#chunks.get(number);
      if (chunk === undefined) target.fill(0, at, at + to - from);
      else target.set(chunk.subarray(from, to), at);
    });
    return count;
  }

  write(bytes: Uint8Array, position: number): void {
    this.#eachPiece(position, bytes.length, (number, from, to, at) => {
      let chunk = this.#chunks.get(number);
      if (chunk === undefined) {
        chunk = new Uint8Array(chunkBytes);
        this.#chunks.set(number, chunk);
      }
      chunk.set(bytes.subarray(at, at + to - from), from);
    });
    if (bytes.length > 0) this.#size = Math.max(this.#size, position + bytes.length);
  }

  truncate(size: number): void {
    for (const number of this.#chunks.keys()) if (number * chunkBytes >= size) this.#chunks.delete(number);
    this.#chunks.get(Math.floor(size / chunkBytes))?.fill(0, size % chunkBytes);
    this.#size = size;
  }

  punch(position: number, length: number): void {
    this.#eachPiece(position, length, (number, from, to) => {
      const chunk = this.#chunks.get(number);
      chunk?.fill(0, from, to);
      if (to - from === chunkBytes || chunk?.every((byte) => byte === 0)) this.#chunks.delete(number);
    });
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {}

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Calls back for each chunk that `[position, position + count)` touches, with the range within the chunk and within
   * the whole.
   */
  #eachPiece(
    position: number,
    count: number,
    visit: (chunk: number, from: number, to: number, at: number) => void,
  ): void {
    for (let at = 0; at < count; ) {
      const number = Math.floor((position + at) / chunkBytes);
      const from = (position + at) % chunkBytes;
      const to = Math.min(chunkBytes, from + count - at);
      visit(number, from, to, at);
      at += to - from;
    }
  }
}
