/** An async sequence of byte chunks (a pipe, a socket, a ReadableStream) as a forward-only ByteSource. */
import { asyncDispose } from '../vm/auto-closed.ts';
import type { OpenedSource } from './byte-source.ts';

export class StreamSource implements OpenedSource {
  readonly name: string;
  readonly size = undefined;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();
  /** Position of the chunk's first unused byte. */
  #position = 0;

  readonly #cancel: (() => Promise<void> | void) | undefined;

  /** `cancel` tells the other side that no more is needed. Without it, closing waits for the pending chunk. */
  constructor(chunks: AsyncIterable<Uint8Array>, name: string, cancel?: () => Promise<void> | void) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.name = name;
    this.#cancel = cancel;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (position < this.#position) {
      throw new RangeError(`${this.name}: expected a position from ${this.#position} on, got ${position}`);
    }
    for (;;) {
      const passed = Math.min(position - this.#position, this.#chunk.length);
      this.#chunk = this.#chunk.subarray(passed);
      this.#position += passed;
      if (this.#chunk.length > 0) break;
      const next = await this.#chunks.next();
      if (next.done) return 0;
      this.#chunk = next.value;
    }
    const count = Math.min(target.length, this.#chunk.length);
    target.set(this.#chunk.subarray(0, count));
    this.#chunk = this.#chunk.subarray(count);
    this.#position += count;
    return count;
  }

  async close(): Promise<void> {
    if (this.#cancel === undefined) await this.#chunks.return?.();
    else await this.#cancel();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}
