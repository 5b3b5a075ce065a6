/**
 * A source that is read only once, because reading it costs time or money: what was read is kept in a store, and read there
 * the next time. Pieces are kept in the order of their reading, so the store is as large as what was read.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { announcements, type ByteSource, type ByteStore, type OpenedSource } from './byte-source.ts';

/** The most pieces. Pieces that follow each other, in the source and in the store, are one. */
const maxPieces = 100_000;

/** Bytes from `start` up to `end` of the source, at `at` in the store. */
interface Piece {
  start: number;
  end: number;
  at: number;
}

export interface KeptSourceOptions {
  /** The most bytes to keep. Default: no limit. */
  maxBytes?: number;
}

export class KeptSource implements OpenedSource {
  readonly name: string;
  readonly coordinate?: NonNullable<ByteSource['coordinate']>;
  readonly size: number | undefined;
  readonly willRead?: NonNullable<ByteSource['willRead']>;
  readonly #source: ByteSource;
  readonly #makeStore: () => Promise<ByteStore>;
  readonly #maxBytes: number;
  /** In the order of their starts. They do not overlap. */
  readonly #pieces: Piece[] = [];
  #store: ByteStore | undefined;
  /** Bytes in the store. */
  #stored = 0;
  #isFull = false;
  /** Reads of the source are made one at a time, so that no byte is read by two of them. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `makeStore` is called when the first bytes have been read. Once the store refuses bytes, no more are kept. */
  constructor(source: ByteSource, makeStore: () => Promise<ByteStore>, options: KeptSourceOptions = {}) {
    this.name = source.name;
    if (source.coordinate !== undefined) this.coordinate = source.coordinate;
    this.size = source.size;
    Object.assign(this, announcements(source));
    this.#source = source;
    this.#makeStore = makeStore;
    this.#maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const kept = await this.#readKept(target, position);
    if (kept > 0) return kept;
    const reading = this.#turn.then(() => this.#readOn(target, position));
    this.#turn = reading.catch(() => {});
    return reading;
  }

  async close(): Promise<void> {
    this.#isFull = true;
    await this.#source.close();
    await this.#turn;
    const store = this.#store;
    this.#store = undefined;
    this.#pieces.length = 0;
    await store?.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  async #readKept(target: Uint8Array, position: number): Promise<number> {
    const piece = this.#pieces[this.#indexAt(position)];
    if (piece === undefined || piece.start > position || this.#store === undefined) return 0;
    const length = Math.min(target.length, piece.end - position);
    return this.#store.read(target.subarray(0, length), piece.at + position - piece.start);
  }

  async #readOn(target: Uint8Array, position: number): Promise<number> {
    // Meanwhile, another read may have fetched the bytes.
    const kept = await this.#readKept(target, position);
    if (kept > 0) return kept;
    const next = this.#pieces[this.#indexAt(position)]?.start ?? Number.POSITIVE_INFINITY;
    const wanted = target.subarray(0, Math.min(target.length, next - position));
    const count = await this.#source.read(wanted, position);
    if (count > 0) await this.#keep(wanted.subarray(0, count), position);
    return count;
  }

  async #keep(bytes: Uint8Array, position: number): Promise<void> {
    if (this.#isFull || this.#stored + bytes.length > this.#maxBytes || this.#pieces.length >= maxPieces) return;
    try {
      this.#store ??= await this.#makeStore();
      await this.#store.write(bytes, this.#stored);
    } catch {
      // There is no more space. What was kept so far can still be read.
      this.#isFull = true;
      return;
    }
    this.#note({ start: position, end: position + bytes.length, at: this.#stored });
    this.#stored += bytes.length;
  }

  #note(piece: Piece): void {
    const index = this.#indexAt(piece.start);
    const before = this.#pieces[index - 1];
    const isNext = before?.end === piece.start && before.at + piece.start - before.start === piece.at;
    if (before !== undefined && isNext) before.end = piece.end;
    else this.#pieces.splice(index, 0, piece);
  }

  /** Index of the first piece that ends after a position. */
  #indexAt(position: number): number {
    let low = 0;
    let high = this.#pieces.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#pieces[middle] as Piece).end <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
