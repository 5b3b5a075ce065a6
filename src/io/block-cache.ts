/** Small reads of a source through a few blocks kept in memory: for tables that are looked up again and again. */
import { type ByteSource, readFully } from './byte-source.ts';

const blockBytes = 64 * 1024;
const maxBlocks = 16;

export class BlockCache {
  readonly #source: ByteSource;
  /** By number; the one used last is the last. */
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** The bytes, if they lie in one block that is there. */
  peek(position: number, length: number): Uint8Array | undefined {
    const number = Math.floor(position / blockBytes);
    const block = this.#blocks.get(number);
    const at = position % blockBytes;
    if (block === undefined || at + length > block.length) return undefined;
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    return block.subarray(at, at + length);
  }

  /** The bytes. @throws MigrationError `truncated` if the source ends before. */
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

  /** A block with at least `needed` bytes; the last one of a source is shorter than others. */
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
