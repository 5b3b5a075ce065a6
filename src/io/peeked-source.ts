/** Looks at the first bytes of a source before it is read. If the source can be read only once, the bytes are kept. */
import type { ByteSource } from './byte-source.ts';

/** What {@link peek} found. */
export interface Peeked {
  /** The first bytes: at most the requested number, fewer if the source ends or `isEnough` returned true. */
  head: Uint8Array;
  /** The source to continue with: the original, or one that returns the kept bytes first. */
  source: ByteSource;
  /** The error that ended the peek early, if any. Reading on from `source` throws it after the bytes of `head`. */
  failure?: Error;
}

/**
 * Reads up to `count` bytes at `offset`. Stops once `isEnough` returns true, because a pipe may stay silent after that.
 */
export async function peek(
  source: ByteSource,
  offset: number,
  count: number,
  isEnough: (head: Uint8Array) => boolean,
): Promise<Peeked> {
  const bytes = new Uint8Array(count);
  let length = 0;
  let failure: Error | undefined;
  while (length < count && (length === 0 || !isEnough(bytes.subarray(0, length)))) {
    try {
      const read = await source.read(bytes.subarray(length), offset + length);
      if (read === 0) break;
      length += read;
    } catch (error) {
      failure = error as Error;
      break;
    }
  }
  const head = bytes.subarray(0, length);
  return {
    head,
    source: source.size === undefined ? new PeekedSource(source, offset, head, failure) : source,
    ...(failure === undefined ? {} : { failure }),
  };
}

/** A forward-only source whose bytes from `start` on were already read, up to `failure` if there was one. */
class PeekedSource implements ByteSource {
  readonly name: string;
  readonly coordinate?: NonNullable<ByteSource['coordinate']>;
  readonly size = undefined;
  readonly #source: ByteSource;
  readonly #start: number;
  readonly #head: Uint8Array;
  readonly #failure: Error | undefined;

  constructor(source: ByteSource, start: number, head: Uint8Array, failure: Error | undefined) {
    this.name = source.name;
    if (source.coordinate !== undefined) this.coordinate = source.coordinate;
    this.#source = source;
    this.#start = start;
    this.#head = head;
    this.#failure = failure;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const at = position - this.#start;
    if (at < 0 || at >= this.#head.length) {
      if (this.#failure !== undefined && at >= 0) throw this.#failure;
      return this.#source.read(target, position);
    }
    const piece = this.#head.subarray(at, at + target.length);
    target.set(piece);
    return piece.length;
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}
