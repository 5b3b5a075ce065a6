/**
 * Reads the pages of a mapped-ram file from their places. The bitmaps say which pages have data; of each, one piece is
 * kept.
 */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { asyncDispose } from '../vm/auto-closed.ts';
import { isBitSet } from '../vm/bits.ts';
import type { PageRun } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState } from '../vm/ram-store.ts';
import { bitmapLength, extentEnd, type GapRule, nextBit, remoteGaps } from '../wire/mapped-ram.ts';
import { readPages } from './read-pages.ts';

/** Bytes of bitmap processed at a time: a multiple of 8. */
const bitmapPiece = 64 * 1024;
const piecePages = bitmapPiece * 8;

/** What a partial file lacks. By default it is whole. */
export interface MappedRamGaps {
  /** Bytes of the file: a page that does not end before is absent. Default: all pages are there. */
  size?: number | undefined;
  /** What a clear bit means. `absent` in a file with only the pages that changed. Default `zero`. */
  clearBit?: 'zero' | 'absent';
  /**
   * The bitmaps were never written. Each page is read from its place: one with data is data, and all others are absent.
   * Default false.
   */
  isUnmarked?: boolean;
}

/**
 * Reads the pages of a mapped-ram file. A page whose bit is clear is zero: the file does not show whether it was
 * absent.
 */
export class MappedRamReader implements OpenedRam {
  readonly blocks: readonly RamBlock[];
  readonly #source: ByteSource;
  readonly #gaps: MappedRamGaps;
  /** The piece of a bitmap that was loaded last. */
  #piece: BitmapPiece = { block: -1, index: -1, bits: new Uint8Array() };

  /** Pages that will be read in order, and how far they were announced to the source. */
  #order = { block: -1, end: 0, announced: 0 };
  /** Which gaps in the piece are read along. */
  #worth: { piece: Uint8Array; isWorthReading: GapRule } | undefined;

  /** `blocks` are the blocks of the file's Flow. `gaps`: what a partial file lacks. */
  constructor(source: ByteSource, blocks: readonly RamBlock[], gaps: MappedRamGaps = {}) {
    this.#source = source;
    this.blocks = blocks;
    this.#gaps = gaps;
  }

  async state(block: RamBlock, page: number): Promise<PageState> {
    const { clearBit = 'zero', isUnmarked = false } = this.#gaps;
    const { bits, cut } = await this.#load(block, page);
    const bit = page % piecePages;
    if (!isBitSet(bits, bit)) return cut === 'all' || (cut !== undefined && isBitSet(cut, bit)) ? 'absent' : clearBit;
    if (!isUnmarked) return 'data';
    const bytes = new Uint8Array(block.pageSize);
    await this.read(block, page, bytes);
    return bytes.some((byte) => byte !== 0) ? 'data' : 'absent';
  }

  willRead(block: RamBlock, first: number, end: number): void {
    if (this.#source.willRead !== undefined) this.#order = { block: block.index, end, announced: first };
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    await this.#announce(block, page, page + target.length / block.pageSize);
    const map = { block, dataBefore: (from: number, end: number) => this.#dataBefore(block, from, end) };
    // A block without a place has no data pages, so the origin does not matter.
    return readPages(this.#source, block.mapped?.pagesOffset ?? 0, map, page, target);
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = pageCount(block);
    const first = await this.#find(block, page, pages, 1);
    const end = await this.#find(block, first, Math.min(pages, first + limit), 0);
    return { first, end };
  }

  /** The first run of data pages in `[page, end)`, see `PageMap`. */
  async #dataBefore(block: RamBlock, page: number, end: number): Promise<{ first: number; end: number }> {
    const first = await this.#find(block, page, end, 1);
    return { first, end: await this.#find(block, first, end, 0) };
  }

  /** Announces the data from `page` on to the source if it is read in order, as far as one piece of the bitmap shows it. */
  async #announce(block: RamBlock, page: number, end: number): Promise<void> {
    const order = this.#order;
    if (block.index !== order.block || end <= order.announced || block.mapped === undefined) return;
    const first = await this.#find(block, Math.max(page, order.announced), Math.min(end, order.end), 1);
    if (first >= end || first >= order.end) return;
    const { bits } = await this.#load(block, first);
    const base = first - (first % piecePages);
    const pages = Math.min(pageCount(block) - base, piecePages);
    if (this.#worth?.piece !== bits) {
      this.#worth = { piece: bits, isWorthReading: remoteGaps(bits, pages, block.pageSize) };
    }
    const last = extentEnd(bits, first - base, Math.min(pages, order.end - base), this.#worth.isWorthReading) + base;
    const { pagesOffset } = block.mapped;
    this.#source.willRead?.(pagesOffset + first * block.pageSize, pagesOffset + last * block.pageSize);
    order.announced = last;
  }

  /** The runs of pages that the file lacks. None in a file without gaps: a page whose bit is clear counts as zero. */
  async *absentRuns(block: RamBlock): AsyncGenerator<PageRun, void> {
    const { size, clearBit, isUnmarked } = this.#gaps;
    if (size === undefined) return;
    let run: PageRun | undefined;
    for (let page = 0, end: number; page < pageCount(block); page = end) {
      const { cut } = await this.#load(block, page);
      const isUniform = cut === 'all' || (cut === undefined && clearBit !== 'absent' && isUnmarked !== true);
      end = isUniform ? Math.min(pageCount(block), page - (page % piecePages) + piecePages) : page + 1;
      const isAbsent = cut === 'all' || (!isUniform && (await this.state(block, page)) === 'absent');
      if (isAbsent && run !== undefined) run.end = end;
      else if (isAbsent) run = { first: page, end };
      else if (run !== undefined) {
        yield run;
        run = undefined;
      }
    }
    if (run !== undefined) yield run;
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The first page in `[page, end)` whose bit is `value`; `end` if there is none. */
  async #find(block: RamBlock, page: number, end: number, value: 0 | 1): Promise<number> {
    let at = page;
    while (at < end) {
      const { bits } = await this.#load(block, at);
      const base = at - (at % piecePages);
      const stop = Math.min(end, base + piecePages);
      at = base + nextBit(bits, at - base, stop - base, value);
      if (at < stop) return at;
    }
    return end;
  }

  /** The piece of the block's bitmap that contains the bit of `page`. All clear for a block without a bitmap. */
  async #load(block: RamBlock, page: number): Promise<BitmapPiece> {
    const index = Math.floor(page / piecePages);
    if (this.#piece.block === block.index && this.#piece.index === index) return this.#piece;
    const at = index * bitmapPiece;
    const bits = new Uint8Array(Math.min(bitmapPiece, bitmapLength(pageCount(block)) - at));
    const { mapped } = block;
    const { size, isUnmarked = false } = this.#gaps;
    const piece: BitmapPiece = { block: block.index, index, bits };
    if (size !== undefined && (mapped === undefined || mapped.bitmapOffset + mapped.bitmapLength > size)) {
      piece.cut = 'all';
    } else if (mapped !== undefined) {
      if (isUnmarked) bits.fill(0xff);
      else await readFully(this.#source, bits, mapped.bitmapOffset + at);
      if (size !== undefined)
        cutBits(piece, Math.floor((size - mapped.pagesOffset) / block.pageSize) - index * piecePages);
    }
    this.#piece = piece;
    return piece;
  }
}

/** A part of a block's bitmap. */
interface BitmapPiece {
  block: number;
  index: number;
  bits: Uint8Array;
  /** The bits of pages that the file does not have, although they have data; `all` if it lacks the bitmap. */
  cut?: Uint8Array | 'all';
}

/** Moves the bits from `whole` on to `cut`: their pages do not end within the file. */
function cutBits(piece: BitmapPiece, whole: number): void {
  const { bits } = piece;
  const first = Math.max(0, whole);
  if (first >= bits.length * 8) return;
  const cut = new Uint8Array(bits.length);
  for (let bit = first; bit < bits.length * 8; bit++) {
    if (!isBitSet(bits, bit)) continue;
    const mask = 1 << (bit & 7);
    cut[bit >> 3] = (cut[bit >> 3] as number) | mask;
    bits[bit >> 3] = (bits[bit >> 3] as number) & ~mask;
  }
  piece.cut = cut;
}
