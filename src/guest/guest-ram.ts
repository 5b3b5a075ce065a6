/**
 * The RAM of a guest that runs here: blocks one after another in a store, which may be memory or a sparse file.
 *
 *     store   | block 0, page 0 1 2 ...  | block 1, page 0 1 2 ... |
 *               never written: a hole, reads as zeros
 */
import { type ByteSource, type ByteStore, readFully } from '../io/byte-source.ts';
import { EventLoopYield } from '../io/event-loop-yield.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import { maxRamBytes, pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { PageState, RamReader } from '../vm/ram-store.ts';

/** A RAM block to be made: its name and its bytes. */
export interface GuestBlockSize {
  idstr: string;
  /** Bytes: whole pages. */
  size: number;
}

/** Bytes of an image that are loaded at a time. */
const loadBytes = 1 << 20;

/** RAM that can be read and written, page by page. */
export class GuestRam implements RamReader {
  readonly blocks: readonly GuestBlock[];
  readonly #store: ByteStore;
  /** Pages that were written, by block. All others are zero. */
  readonly #written: readonly PageBitmap[];

  /**
   * Takes an empty store, and closes it with {@link close}.
   * @throws RangeError for sizes that are not whole pages, or too large
   */
  constructor(store: ByteStore, sizes: readonly GuestBlockSize[], pageSize = 4096) {
    if (!isPageSize(pageSize)) throw new RangeError(`expected a page size that is ${pageSizeRule}, got ${pageSize}`);
    let end = 0;
    this.blocks = sizes.map(({ idstr, size }, index) => {
      if (!(size > 0 && size % pageSize === 0 && size <= maxRamBytes)) {
        throw new RangeError(`expected whole pages of ${pageSize} bytes for RAM block "${idstr}", got ${size} bytes`);
      }
      const ramAddress = end;
      end += size;
      return { index, idstr, usedLength: size, pageSize, ramAddress };
    });
    this.#store = store;
    this.#written = this.blocks.map((block) => new PageBitmap(block));
  }

  state(block: RamBlock, page: number): PageState {
    return this.#written[block.index]?.has(page) === true ? 'data' : 'zero';
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const written = this.#written[block.index] as PageBitmap;
    const first = written.nextSet(page);
    const last = Math.min(pageCount(block), first + limit);
    let end = first;
    while (end < last && written.has(end)) end++;
    return { first, end };
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const store = this.#store;
    const position = this.#position(block, page);
    const count = Math.max(0, Math.min(target.length, store.size - position));
    target.fill(0, count);
    if (count > 0) await readFully(store, target.subarray(0, count), position);
  }

  /** Writes whole pages. */
  write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> | void {
    const written = this.#written[block.index] as PageBitmap;
    const end = page + bytes.length / block.pageSize;
    for (let at = page; at < end; at++) written.set(at);
    return this.#store.write(bytes, this.#position(block, page));
  }

  /**
   * Loads an image into a block, from its first page on. Pages of zeros stay holes. An image that ends within a page is
   * filled up with zeros.
   * @throws RangeError for an image that is longer than the block
   */
  async load(block: RamBlock, image: ByteSource): Promise<void> {
    const { size = Number.NaN } = image;
    if (!(size <= block.usedLength)) {
      throw new RangeError(`expected at most ${block.usedLength} bytes for RAM block "${block.idstr}", got ${size}`);
    }
    const turns = new EventLoopYield();
    const window = new Uint8Array(loadBytes);
    const { pageSize } = block;
    for (let at = 0; at < size; at += loadBytes) {
      const count = Math.min(loadBytes, size - at);
      await readFully(image, window.subarray(0, count), at);
      window.fill(0, count);
      for (let from = 0; from < count; from += pageSize) {
        const page = window.subarray(from, from + pageSize);
        if (!isZero(page)) await this.write(block, (at + from) / pageSize, page);
      }
      await turns.after(count);
    }
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #position({ index }: RamBlock, page: number): number {
    const { ramAddress, pageSize } = this.blocks[index] as GuestBlock;
    return ramAddress + page * pageSize;
  }
}

function isZero(page: Uint8Array): boolean {
  const words = new Float64Array(page.buffer, page.byteOffset, page.length / 8);
  // NaN and -0 differ from 0 in their bytes: Object.is tells them apart, and every other number is not 0.
  return words.every((word) => Object.is(word, 0));
}
