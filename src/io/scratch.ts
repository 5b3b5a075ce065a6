/**
 * Scratch files on platforms without an ordinary file system: in memory up to a limit, or on the platform's private
 * disk.
 */
import { type AutoClosed, asyncDispose } from '../vm/auto-closed.ts';
import type { ByteStore } from './byte-source.ts';
import { EventLoopYield } from './event-loop-yield.ts';
import { MemoryFile } from './memory-file.ts';
import type { PlatformFile } from './platform.ts';

/** A store that is removed when it is closed. */
export interface ScratchFile extends ByteStore, AutoClosed {
  /** Ends the writing. Returns the content as a file, which can be read until the store is closed. */
  finish(name: string): Promise<PlatformFile>;
}

/** Makes scratch files. */
export interface ScratchPlace {
  readonly kind: 'disk' | 'memory';
  /** Makes an empty scratch file. */
  makeFile(): Promise<ScratchFile>;
}

/** There is not enough space for the data. */
export class NoRoomError extends Error {
  override readonly name = 'NoRoomError';
  readonly code = 'ERR_NO_ROOM';
}

/** Scratch files in memory, of at most `limit` bytes in all. */
export class MemoryScratch implements ScratchPlace {
  readonly kind = 'memory';
  readonly limit: number;
  #used = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  async makeFile(): Promise<ScratchFile> {
    return new LimitedFile((bytes) => this.#take(bytes));
  }

  /** @throws NoRoomError */
  #take(bytes: number): void {
    this.#used += bytes;
    if (this.#used <= this.limit) return;
    const limit = `${this.limit / 2 ** 20} MiB`;
    throw new NoRoomError(`scratch files have no disk here, and would need more than ${limit} of memory`);
  }
}

/** A file in memory that requests space before it grows. */
class LimitedFile implements ScratchFile {
  readonly name = 'scratch';
  readonly #file = new MemoryFile(this.name);
  readonly #turns = new EventLoopYield();
  readonly #take: (bytes: number) => void;

  constructor(take: (bytes: number) => void) {
    this.#take = take;
  }

  get size(): number {
    return this.#file.size;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const count = this.#file.read(target, position);
    return this.#turns.after(count)?.then(() => count) ?? count;
  }

  write(bytes: Uint8Array, position: number): void {
    const before = this.#file.storedBytes;
    this.#file.write(bytes, position);
    this.#take(this.#file.storedBytes - before);
  }

  truncate(size: number): void {
    const before = this.#file.storedBytes;
    this.#file.truncate(size);
    this.#take(this.#file.storedBytes - before);
  }

  async sync(): Promise<void> {}

  async finish(name: string): Promise<PlatformFile> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    const pieceBytes = 1 << 20;
    for (let at = 0; at < this.size; at += pieceBytes) {
      const piece = new Uint8Array(Math.min(pieceBytes, this.size - at));
      this.#file.read(piece, at);
      pieces.push(piece);
    }
    return new File(pieces, name);
  }

  async close(): Promise<void> {
    this.truncate(0);
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}
