/**
 * RAM that is the content of raw images, one per block, read when it is needed: the base of a guest that begins with a file
 * of any size. What is beyond the end of an image is zero.
 *
 *     image   | pages ........ | half a page |
 *     block   | pages ........ | page, filled up | zeros ...... |
 *
 * Node cannot ask a file for its holes, and what a file system counts as allocated is not always what has data. So holes
 * are not looked for: nothing is read before somebody needs it, and a hole then reads as zeros.
 */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import type { PageRun } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import { type GuestBlockSize, makeBlocks } from './guest-ram.ts';

/** A RAM block, and its content. */
export interface ImageBlock extends GuestBlockSize {
  /** At most `size` bytes. It must not change while it is in use. Default: zeros. */
  image?: ByteSource | undefined;
}

/** @throws RangeError for sizes that are not whole pages, and for an image that is longer than its block */
export class ImageRam implements RamReader {
  readonly blocks: readonly RamBlock[];
  readonly #images: readonly (ByteSource | undefined)[];

  /** Closes the images with {@link close}. */
  constructor(blocks: readonly ImageBlock[], pageSize = 4096) {
    this.blocks = makeBlocks(blocks, pageSize);
    this.#images = blocks.map(({ image }) => image);
    for (const { idstr, size, image } of blocks) {
      const { size: bytes = Number.NaN } = image ?? { size: 0 };
      if (bytes <= size) continue;
      throw new RangeError(`expected at most ${size} bytes for RAM block "${idstr}", got ${bytes}`);
    }
  }

  /** A page of an image counts as data, whatever is in it. */
  state(block: RamBlock, page: number): 'data' | 'zero' {
    return page < this.#dataPages(block) ? 'data' : 'zero';
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<PageRun> {
    const pages = this.#dataPages(block);
    const first = page < pages ? page : pageCount(block);
    return { first, end: Math.max(first, Math.min(pages, first + limit)) };
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const image = this.#images[block.index];
    const position = page * block.pageSize;
    const count = Math.max(0, Math.min(target.length, (image?.size ?? 0) - position));
    target.fill(0, count);
    if (image !== undefined && count > 0) await readFully(image, target.subarray(0, count), position);
  }

  async close(): Promise<void> {
    for (const image of this.#images) await image?.close();
  }

  #dataPages({ index, pageSize }: RamBlock): number {
    return Math.ceil((this.#images[index]?.size ?? 0) / pageSize);
  }
}
