/**
 * RAM from raw images, one per block, with page i at i * page size. This lets a VM be written from memory of any
 * origin.
 */

import { type ByteSource, readFully } from '../io/byte-source.ts';
import { asyncDispose } from '../vm/auto-closed.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import { maxRamBytes, pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam } from '../vm/ram-store.ts';

/** A RAM block and the source of its content. */
export interface RawBlock {
  idstr: string;
  source: ByteSource;
}

const defaultPageSize = 4096;

/** RAM in raw images. */
export class RawRam implements OpenedRam {
  readonly blocks: readonly RamBlock[];
  readonly #sources: readonly ByteSource[];

  /** @throws RangeError for an image that is not whole pages, or an invalid page size */
  constructor(images: readonly RawBlock[], pageSize = defaultPageSize) {
    if (!isPageSize(pageSize)) throw new RangeError(`expected a page size that is ${pageSizeRule}, got ${pageSize}`);
    this.#sources = images.map(({ source }) => source);
    this.blocks = images.map(({ idstr, source: { size = Number.NaN } }, index) => {
      if (size % pageSize === 0 && size <= maxRamBytes) return { index, idstr, usedLength: size, pageSize };
      throw new RangeError(`expected whole pages of ${pageSize} bytes in the image of "${idstr}", got ${size} bytes`);
    });
  }

  /** Every page counts as data, because its content is unknown before it is read. */
  state(): 'data' {
    return 'data';
  }

  async read({ index, pageSize }: RamBlock, page: number, target: Uint8Array): Promise<void> {
    await readFully(this.#sources[index] as ByteSource, target, page * pageSize);
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = pageCount(block);
    return { first: Math.min(page, pages), end: Math.min(page + limit, pages) };
  }

  async close(): Promise<void> {
    for (const source of this.#sources) await source.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}
