/**
 * Bytes that go to someone else, as a source. Whoever passes them on writes them here, too, and waits until they were
 * read. Nothing is kept.
 */
import type { ByteSink, ByteSource } from './byte-source.ts';

export class Tap implements ByteSource, ByteSink {
  readonly size = undefined;
  readonly name: string;
  /** Bytes that were written and not read yet. */
  #bytes: Uint8Array | undefined;
  #hasEnded = false;
  #isClosed = false;
  #onRead: () => void = () => {};
  #onWrite: () => void = () => {};

  constructor(name: string) {
    this.name = name;
  }

  /** Resolves when the bytes were read, at once if nobody reads any more. */
  write(bytes: Uint8Array): Promise<void> {
    if (this.#isClosed || bytes.length === 0) return Promise.resolve();
    this.#bytes = bytes;
    this.#onWrite();
    return new Promise((resolve) => {
      this.#onRead = resolve;
    });
  }

  /** Nothing more will be written. */
  end(): void {
    this.#hasEnded = true;
    this.#onWrite();
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#bytes === undefined && !this.#hasEnded && !this.#isClosed) {
      await new Promise<void>((resolve) => {
        this.#onWrite = resolve;
      });
    }
    const bytes = this.#bytes;
    if (bytes === undefined || this.#isClosed) return 0;
    const piece = bytes.subarray(0, target.length);
    target.set(piece);
    this.#bytes = piece.length === bytes.length ? undefined : bytes.subarray(piece.length);
    if (this.#bytes === undefined) this.#onRead();
    return piece.length;
  }

  /** Nobody reads any more. What is written is dropped. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#bytes = undefined;
    this.#onRead();
    this.#onWrite();
  }
}
