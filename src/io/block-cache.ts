/** Serves small reads of a source from a few blocks kept in memory. For tables that are looked up repeatedly. */
import { type ByteSource, readFully } from './byte-source.ts';

const blockBytes = 64 * 1024;
const maxBlocks = 16;

export class BlockCache {
  readonly #source: ByteSource;
  /** Blocks by number, the most recently used last. */
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Returns the bytes if they are in one cached block. */
  peek(position: number, length: number): Uint8Array | undefined {
    const number = Math.floor(position / blockBytes);
    const block = this.#blocks.get(number);
    const at = position % blockBytes;
    if (block === undefined || at + length > block.length) return undefined;
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    return block.subarray(at, at + length);
  }

  /** Returns the bytes. @throws MigrationError `truncated` if the source ends earlier. */
  async read(position: number, length: number): Promise<Uint8Array> {
    const known = this.peek(position, length);
    if (known !== undefined) return known;
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const at = (position + done) % blockBytes;
      const block = await this.#load(Math.floor((position + done) / blockBytes), at + 1);
      const piece = block.subarray(at, at + length - done);
      bytes.set(piece, done);
      done += piece.length;
    }
    return bytes;
  }

  /** Loads a block of at least `needed` bytes. The last block of a source is shorter than the others. */
  async #load(number: number, needed: number): Promise<Uint8Array> {
    const start = number * blockBytes;
    const length = Math.min(blockBytes, Math.max(needed, (this.#source.size ?? Number.POSITIVE_INFINITY) - start));
    const known = this.#blocks.get(number);
    if (known !== undefined && known.length >= needed) return known;
    const block = new Uint8Array(length);
    await readFully(this.#source, block, start);
    this.#blocks.set(number, block);
    const [oldest] = this.#blocks.keys();
    if (this.#blocks.size > maxBlocks && oldest !== undefined) this.#blocks.delete(oldest);
    return block;
  }
}
