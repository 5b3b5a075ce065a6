/** The first bytes of a source, looked at before it is read: of one that can only be read forward they are kept. */
import type { ByteSource } from './byte-source.ts';

export interface Peeked {
  /** The first bytes, at most as many as were asked for; fewer if the source ends, or `isEnough` said so. */
  head: Uint8Array;
  /** What to read on from: the source, or one that gives the kept bytes first. */
  source: ByteSource;
}

/** Looks at up to `count` bytes at `offset`; asks for more only while `isEnough` says no, since a pipe may stay silent. */
export async function peek(
  source: ByteSource,
  offset: number,
  count: number,
  isEnough: (head: Uint8Array) => boolean,
): Promise<Peeked> {
  const bytes = new Uint8Array(count);
  let length = 0;
  while (length < count && (length === 0 || !isEnough(bytes.subarray(0, length)))) {
    const read = await source.read(bytes.subarray(length), offset + length);
    if (read === 0) break;
    length += read;
  }
  const head = bytes.subarray(0, length);
  return { head, source: source.size === undefined ? new PeekedSource(source, offset, head) : source };
}

/** A forward-only source whose bytes from `start` on have been read already. */
class PeekedSource implements ByteSource {
  readonly name: string;
  readonly coordinate?: NonNullable<ByteSource['coordinate']>;
  readonly size = undefined;
  readonly #source: ByteSource;
  readonly #start: number;
  #head: Uint8Array;

  constructor(source: ByteSource, start: number, head: Uint8Array) {
    this.name = source.name;
    if (source.coordinate !== undefined) this.coordinate = source.coordinate;
    this.#source = source;
    this.#start = start;
    this.#head = head;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const at = position - this.#start;
    if (at < 0 || at >= this.#head.length) return this.#source.read(target, position);
    const piece = this.#head.subarray(at, at + target.length);
    target.set(piece);
    return piece.length;
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}
