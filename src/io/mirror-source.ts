/**
 * A source whose reads are expensive, such as a file on a server, with a copy that fills up: each block is fetched once, and
 * lies at its own place in the copy. A copy that has all blocks is the file.
 *
 *     source   |0|1|2|3|4|5|6|7|8|9|
 *     read         ↑                     fetches 2, and the blocks behind it beside that
 *     copy     |0| |2|3|4|5| | | | |
 *     present   1 0 1 1 1 1 0 0 0 0
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { type ByteSource, type ByteStore, type OpenedSource, readFully } from './byte-source.ts';

/** Bytes of a block: what takes about as long as a request. */
export const mirrorBlockBytes = 256 << 10;
/** Blocks behind a block that was read which are fetched, too, and the most that are fetched at a time besides those that are waited for. */
const [blocksAhead, mostAhead] = [3, 16];

export interface MirrorOptions {
  /** The blocks that the copy has already, one bit per block, LSB first. It is kept up to date. Default: none. */
  present?: Uint8Array;
  /** Called when a block was written to the copy. */
  onBlock?: (() => void) | undefined;
}

export class MirrorSource implements OpenedSource {
  readonly name: string;
  readonly size: number;
  /** One bit per block, LSB first. */
  readonly present: Uint8Array;
  readonly #source: ByteSource;
  readonly #copy: ByteStore;
  readonly #blocks: number;
  readonly #onBlock: (() => void) | undefined;
  #missing = 0;
  /** Blocks on their way. */
  readonly #coming = new Map<number, Promise<void>>();
  /** Blocks to fetch when there is time. */
  #wanted: number[] = [];
  #ahead = 0;
  #isClosed = false;

  /** @throws RangeError for a source without random access */
  constructor(source: ByteSource, copy: ByteStore, { present, onBlock }: MirrorOptions = {}) {
    if (source.size === undefined) throw new RangeError(`expected a source with random access, got ${source.name}`);
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
    this.#copy = copy;
    this.#onBlock = onBlock;
    this.#blocks = Math.ceil(this.size / mirrorBlockBytes);
    this.present = present ?? new Uint8Array(Math.ceil(this.#blocks / 8));
    for (let block = 0; block < this.#blocks; block++) if (!this.#has(block)) this.#missing++;
  }

  /** Whether the copy is the file. */
  get isWhole(): boolean {
    return this.#missing === 0;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (position >= this.size || target.length === 0) return 0;
    const first = Math.floor(position / mirrorBlockBytes);
    const last = Math.floor((Math.min(position + target.length, this.size) - 1) / mirrorBlockBytes);
    for (let block = last + blocksAhead; block > first; block--) this.#want(block);
    if (!this.#has(first)) await this.#fetch(first);
    this.#fetchAhead();
    const end = Math.min(this.size, (first + 1) * mirrorBlockBytes);
    const piece = target.subarray(0, Math.min(target.length, end - position));
    await readFully(this.#copy, piece, position);
    return piece.length;
  }

  /** Fetches bytes when there is time, in the order of the calls. */
  prefetch(position: number, length: number): void {
    const last = Math.floor((position + length - 1) / mirrorBlockBytes);
    for (let block = Math.floor(position / mirrorBlockBytes); block <= last; block++) this.#wanted.push(block);
    this.#fetchAhead();
  }

  /** Resolves when nothing is on its way any more. Leaves the source and the copy open. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wanted = [];
    await Promise.allSettled(this.#coming.values());
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  #has(block: number): boolean {
    return (((this.present[block >> 3] ?? 0) >> (block & 7)) & 1) === 1;
  }

  /** Before everything else that is fetched ahead. */
  #want(block: number): void {
    if (block < this.#blocks && !this.#has(block) && !this.#coming.has(block)) this.#wanted.unshift(block);
  }

  #fetchAhead(): void {
    while (this.#ahead < mostAhead && !this.#isClosed) {
      const block = this.#wanted.shift();
      if (block === undefined) return;
      if (block >= this.#blocks || this.#has(block) || this.#coming.has(block)) continue;
      this.#ahead++;
      const done = () => {
        this.#ahead--;
        this.#fetchAhead();
      };
      // A failure is reported to whoever reads the block.
      this.#fetch(block).then(done, done);
    }
  }

  #fetch(block: number): Promise<void> {
    const coming = this.#coming.get(block);
    if (coming !== undefined) return coming;
    const fetching = this.#copyBlock(block).finally(() => this.#coming.delete(block));
    this.#coming.set(block, fetching);
    return fetching;
  }

  async #copyBlock(block: number): Promise<void> {
    const start = block * mirrorBlockBytes;
    const bytes = new Uint8Array(Math.min(mirrorBlockBytes, this.size - start));
    await readFully(this.#source, bytes, start);
    await this.#copy.write(bytes, start);
    this.present[block >> 3] = (this.present[block >> 3] as number) | (1 << (block & 7));
    this.#missing--;
    this.#onBlock?.();
  }
}
