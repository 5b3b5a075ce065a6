/**
 * The RAM of a guest that runs here: blocks one after another in a store, which may be memory or a sparse file. Under it
 * there may be a base, the RAM of a VM that was loaded or has arrived: pages that were not written are read from there.
 *
 *     store   | block 0, page 0 1 2 ...  | block 1, page 0 1 2 ... |
 *               never written: a hole, reads as the base, or as zeros
 */
import { type ByteSource, type ByteStore, readFully } from '../io/byte-source.ts';
import { EventLoopYield } from '../io/event-loop-yield.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import type { PageRun } from '../vm/page-states.ts';
import { maxRamBytes, pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { PageState, RamReader } from '../vm/ram-store.ts';
import { type FreezeOptions, FrozenRam } from './frozen-ram.ts';

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
  readonly #base: RamReader | undefined;
  /** Pages that were written, by block. All others are those of the base, or zero. */
  readonly #written: readonly PageBitmap[];
  /** Pages that were discarded, by block: zeros. Undefined: none was. */
  #discarded: readonly PageBitmap[] | undefined;
  /** Those who keep what is overwritten. */
  readonly #frozen = new Set<FrozenRam>();

  /**
   * Takes an empty store, and closes it with {@link close}.
   * @throws RangeError for sizes that are not whole pages, or too large
   */
  constructor(store: ByteStore, sizes: readonly GuestBlockSize[], pageSize?: number);
  /** Takes an empty store, and the RAM of a VM, which stays as it is. Closes both with {@link close}. */
  constructor(store: ByteStore, base: RamReader);
  constructor(store: ByteStore, content: readonly GuestBlockSize[] | RamReader, pageSize = 4096) {
    this.#store = store;
    this.#base = 'blocks' in content ? content : undefined;
    this.blocks = placeBlocks('blocks' in content ? content.blocks : makeBlocks(content, pageSize));
    this.#written = this.blocks.map((block) => new PageBitmap(block));
  }

  state(block: RamBlock, page: number): PageState | Promise<PageState> {
    if (this.#writtenOf(block).has(page)) return 'data';
    if (this.#isDiscarded(block, page)) return 'zero';
    return this.#base?.state(this.#below(block), page) ?? 'zero';
  }

  /** Whether the base never had this page, and nobody has written it since. */
  isAbsent(block: RamBlock, page: number): boolean {
    if (this.#writtenOf(block).has(page) || this.#isDiscarded(block, page)) return false;
    return this.#base?.isAbsent?.(this.#below(block), page) === true;
  }

  async *absentRuns(block: RamBlock): AsyncGenerator<PageRun, void> {
    const written = this.#writtenOf(block);
    for await (const { first, end } of this.#base?.absentRuns?.(this.#below(block)) ?? []) {
      const isTaken = (page: number) => written.has(page) || this.#isDiscarded(block, page);
      for (let page = first; page < end; ) {
        let stop = page;
        while (stop < end && !isTaken(stop)) stop++;
        if (stop > page) yield { first: page, end: stop };
        for (page = stop; page < end && isTaken(page); ) page++;
      }
    }
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<PageRun> {
    const written = this.#writtenOf(block);
    const first = written.nextSet(page);
    const below = await this.#nextBelow(block, page, limit);
    const isBelow = below !== undefined && below.first < first;
    let end = isBelow ? below.end : first;
    const last = Math.min(pageCount(block), (isBelow ? below.first : first) + limit);
    while (end < last && written.has(end)) end++;
    return { first: isBelow ? below.first : first, end };
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const base = this.#base;
    if (base === undefined) await this.#readStore(block, page, target);
    else await this.#readBoth(base, block, page, target);
    if (this.#discarded === undefined) return;
    const { pageSize } = block;
    for (let at = 0; at < target.length; at += pageSize) {
      if (this.#isDiscarded(block, page + at / pageSize)) target.fill(0, at, at + pageSize);
    }
  }

  async #readBoth(base: RamReader, block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const written = this.#writtenOf(block);
    const { pageSize } = block;
    const count = target.length / pageSize;
    for (let from = 0, end = 0; from < count; from = end) {
      const isWritten = written.has(page + from);
      if (isWritten) while (end < count && written.has(page + end)) end++;
      else end = Math.min(count, written.nextSet(page + from) - page);
      const part = target.subarray(from * pageSize, end * pageSize);
      if (isWritten) await this.#readStore(block, page + from, part);
      else await base.read(this.#below(block), page + from, part);
    }
  }

  /** The next run of data in the base that was not discarded. */
  async #nextBelow(block: RamBlock, page: number, limit: number): Promise<PageRun | undefined> {
    const base = this.#base;
    const discarded = this.#discarded?.[block.index];
    let run = await base?.nextData(this.#below(block), page, limit);
    if (discarded === undefined) return run;
    while (run !== undefined && run.first < pageCount(block) && discarded.has(run.first)) {
      run = await base?.nextData(this.#below(block), discarded.nextClear(run.first), limit);
    }
    return run && { first: run.first, end: Math.min(run.end, Math.max(run.first, discarded.nextSet(run.first))) };
  }

  async #readStore(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const store = this.#store;
    const position = this.#position(block, page);
    const count = Math.max(0, Math.min(target.length, store.size - position));
    target.fill(0, count);
    if (count > 0) await readFully(store, target.subarray(0, count), position);
  }

  willRead(block: RamBlock, first: number, end: number): void {
    this.#base?.willRead?.(this.#below(block), first, end);
  }

  /** Writes whole pages. Until the write is done, they are read as they were before or as they will be. */
  write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> | void {
    if (this.#frozen.size === 0) return this.#write(block, page, bytes);
    const placed = this.blocks[block.index] as GuestBlock;
    const kept = [...this.#frozen].map((frozen) => frozen.keep(placed, page, bytes.length / block.pageSize));
    return Promise.all(kept).then(() => this.#write(block, page, bytes));
  }

  #write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> | void {
    const written = this.#writtenOf(block);
    const end = page + bytes.length / block.pageSize;
    const mark = () => {
      for (let at = page; at < end; at++) {
        written.set(at);
        this.#discarded?.[block.index]?.clear(at);
      }
    };
    const writing = this.#store.write(bytes, this.#position(block, page));
    if (writing !== undefined) return writing.then(mark);
    mark();
  }

  /**
   * Other RAM with the same content, in an empty store of its own. What was not written stays in the base of both, which
   * only this one closes.
   * @throws Error if anything was written or discarded
   */
  branch(store: ByteStore): GuestRam {
    const base = this.#base;
    if (base === undefined || this.#discarded !== undefined || this.#written.some(({ count }) => count > 0)) {
      throw new Error('expected RAM over a base in which nothing was written');
    }
    const kept: RamReader = {
      blocks: base.blocks,
      state: (block, page) => base.state(block, page),
      read: (block, page, target) => base.read(block, page, target),
      nextData: (block, page, limit) => base.nextData(block, page, limit),
      close: async () => {},
    };
    return new GuestRam(store, kept);
  }

  /** Discards pages `[first, end)`, which are zeros from now on, and releases their storage where the store can. */
  async discard(block: RamBlock, first: number, end: number): Promise<void> {
    const placed = this.blocks[block.index] as GuestBlock;
    await Promise.all([...this.#frozen].map((frozen) => frozen.keep(placed, first, end - first)));
    this.#discarded ??= this.blocks.map((each) => new PageBitmap(each));
    const written = this.#writtenOf(block);
    for (let page = first; page < end; page++) {
      written.clear(page);
      this.#discarded[block.index]?.set(page);
    }
    this.#store.punch?.(this.#position(block, first), (end - first) * block.pageSize);
  }

  /**
   * Freezes the content as it is now: what is written from now on does not change what the result reads, each page once.
   * Nobody may be writing at this moment, so the guest is stopped. Close the result when it was read.
   */
  freeze(options: FreezeOptions = {}): FrozenRam {
    const frozen = new FrozenRam(this, options, () => this.#frozen.delete(frozen));
    this.#frozen.add(frozen);
    return frozen;
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

  async close(): Promise<void> {
    await this.#store.close();
    await this.#base?.close();
  }

  #isDiscarded({ index }: RamBlock, page: number): boolean {
    return this.#discarded?.[index]?.has(page) === true;
  }

  #writtenOf({ index }: RamBlock): PageBitmap {
    return this.#written[index] as PageBitmap;
  }

  /** The block in the base. */
  #below({ index }: RamBlock): RamBlock {
    return this.#base?.blocks[index] as RamBlock;
  }

  #position({ index }: RamBlock, page: number): number {
    const { ramAddress, pageSize } = this.blocks[index] as GuestBlock;
    return ramAddress + page * pageSize;
  }
}

/** Makes blocks of one page size. @throws RangeError for sizes that are not whole pages, or too large */
export function makeBlocks(sizes: readonly GuestBlockSize[], pageSize: number): RamBlock[] {
  if (!isPageSize(pageSize)) throw new RangeError(`expected a page size that is ${pageSizeRule}, got ${pageSize}`);
  return sizes.map(({ idstr, size }, index) => {
    if (!(size > 0 && size % pageSize === 0 && size <= maxRamBytes)) {
      throw new RangeError(`expected whole pages of ${pageSize} bytes for RAM block "${idstr}", got ${size} bytes`);
    }
    return { index, idstr, usedLength: size, pageSize };
  });
}

/** Gives blocks RAM addresses, one after another. Their places in a file are not those of a guest. */
function placeBlocks(blocks: readonly RamBlock[]): GuestBlock[] {
  let end = 0;
  return blocks.map(({ mapped: _, ...block }) => {
    const ramAddress = end;
    end += block.usedLength;
    return { ...block, ramAddress };
  });
}

function isZero(page: Uint8Array): boolean {
  const words = new Float64Array(page.buffer, page.byteOffset, page.length / 8);
  // NaN and -0 differ from 0 in their bytes: Object.is tells them apart, and every other number is not 0.
  return words.every((word) => Object.is(word, 0));
}
