/**
 * A range of a Blob, read in order through its stream. A byte stream fills a buffer that is used again and again, so a large
 * buffer costs little memory, and the browser copies the bytes once. Where the Blob has no byte stream, chunks are taken as
 * they come. While one buffer is used, the next is being filled.
 */
import type { BlobLike } from './platform.ts';

/** The readers of a Blob's stream, as far as they are used. */
interface ChunkReader {
  /** A reader of a byte stream takes a view to fill, and returns it in another object. */
  read(view?: Uint8Array): Promise<{ done: boolean; value?: Uint8Array | undefined }>;
  cancel(reason?: unknown): Promise<unknown>;
}

interface ChunkStream {
  getReader(options?: { mode: 'byob' }): ChunkReader;
}

/** Whether a Blob can be read in order, other than by slices. */
export const hasStream = (blob: BlobLike): boolean => typeof blob.stream === 'function';

export class BlobStream {
  /** Offset of the next byte. */
  position: number;
  /** Offset after the last byte that the stream reads. */
  readonly end: number;
  readonly #reader: ChunkReader;
  /** The buffers that are free, if the stream fills buffers. */
  readonly #free: ArrayBufferLike[] | undefined;
  #chunk: Uint8Array = new Uint8Array();
  #pending: Promise<Uint8Array> | undefined;
  /** Offset of the next byte to request. */
  #requested: number;

  /** Reads `[start, end)` through two buffers of `bufferBytes` each. */
  constructor(blob: BlobLike, start: number, end: number, bufferBytes: number) {
    this.position = start;
    this.end = end;
    this.#requested = start;
    const stream = blob.slice(start, end).stream?.() as ChunkStream;
    const bytes = Math.min(bufferBytes, end - start);
    try {
      this.#reader = stream.getReader({ mode: 'byob' });
      this.#free = [new ArrayBuffer(bytes), new ArrayBuffer(bytes)];
    } catch {
      // The Blob's stream is not a byte stream.
      this.#reader = stream.getReader();
    }
  }

  /** Bytes that can be read without waiting. */
  get available(): number {
    return this.#chunk.length;
  }

  /** Skips to `position`, and reads up to `target.length` bytes from there. Returns 0 where the Blob ends too early. */
  read(target: Uint8Array, position: number): Promise<number> | number {
    this.#pass(position - this.position);
    return this.#chunk.length > 0 ? this.#take(target) : this.#wait(target, position);
  }

  /** Ends the reading. The buffers must not be used again. */
  async cancel(): Promise<void> {
    this.#pending?.catch(() => {});
    await this.#reader.cancel().catch(() => {});
  }

  async #wait(target: Uint8Array, position: number): Promise<number> {
    while (this.#chunk.length === 0) {
      const chunk = await (this.#pending ?? this.#request());
      this.#pending = undefined;
      if (chunk.length === 0) return 0;
      this.#chunk = chunk;
      this.#requested += chunk.length;
      if (this.#requested < this.end) this.#begin();
      this.#pass(position - this.position);
    }
    return this.#take(target);
  }

  /** Starts to fill the other buffer. A failure is reported where the bytes are needed. */
  #begin(): void {
    this.#pending = this.#request();
    this.#pending.catch(() => {});
  }

  async #request(): Promise<Uint8Array> {
    const buffer = this.#free?.pop();
    const { done, value } = await this.#reader.read(buffer === undefined ? undefined : new Uint8Array(buffer));
    return done || value === undefined ? new Uint8Array() : value;
  }

  #take(target: Uint8Array): number {
    const count = Math.min(target.length, this.#chunk.length);
    target.set(this.#chunk.subarray(0, count));
    this.#pass(count);
    return count;
  }

  #pass(bytes: number): void {
    const count = Math.min(bytes, this.#chunk.length);
    if (count <= 0) return;
    this.position += count;
    const left = this.#chunk.subarray(count);
    if (left.length === 0) this.#free?.push(this.#chunk.buffer);
    this.#chunk = left.length === 0 ? new Uint8Array() : left;
  }
}
