/** Sources of bytes that misbehave like real ones. */
import type { ByteSource } from '../../src/io/byte-source.ts';

export interface ScriptedOptions {
  /** The most bytes per read. */
  chunk?: number;
  /** Whether the source knows its size and can seek backward. Default true. */
  isSeekable?: boolean;
  /** Reads that reach this offset fail. */
  failAt?: number;
  /** How a read fails. Default: by a rejection. */
  fails?: 'later' | 'at once';
  /** Whether reads are answered at once, or in a later turn of the event loop. Default: at once. */
  isSlow?: boolean;
}

/** Bytes in memory behind a source that records its reads. */
export class ScriptedSource implements ByteSource {
  readonly name = 'scripted';
  readonly size: number | undefined;
  readonly reads: { position: number; length: number }[] = [];
  /** Reads not answered yet. */
  pending = 0;
  isClosed = false;
  readonly #bytes: Uint8Array;
  readonly #options: ScriptedOptions;

  constructor(bytes: Uint8Array, options: ScriptedOptions = {}) {
    this.#bytes = bytes;
    this.#options = options;
    this.size = options.isSeekable === false ? undefined : bytes.length;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const { chunk = Number.POSITIVE_INFINITY, failAt, fails = 'later', isSlow = false } = this.#options;
    this.reads.push({ position, length: target.length });
    const length = Math.min(target.length, chunk);
    const error = new Error(`cannot read at ${position}`);
    if (failAt !== undefined && position + length > failAt && position >= failAt) {
      if (fails === 'at once') throw error;
      return Promise.reject(error);
    }
    const end = failAt === undefined ? position + length : Math.min(position + length, failAt);
    const piece = this.#bytes.subarray(position, end);
    const answer = () => {
      target.set(piece);
      return piece.length;
    };
    if (!isSlow) return answer();
    this.pending++;
    return new Promise((resolve) =>
      setTimeout(() => {
        this.pending--;
        resolve(answer());
      }, 1),
    );
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }
}

export async function* chunksOf(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.slice(at, at + length);
}
