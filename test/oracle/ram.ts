import { inflateSync } from 'node:zlib';
import type { Cursor } from './cursor.ts';
import { applyDelta } from './xbzrle.ts';

/**
 * The "ram" section: its block list, its page records, and the blocks of a mapped-ram file.
 * Stores pages one by one as they arrive, so that a guest takes only the memory of its pages.
 */

const ZERO = 0x002;
const MEM_SIZE = 0x004;
const PAGE = 0x008;
const EOS = 0x010;
const CONTINUE = 0x020;
const XBZRLE = 0x040;
const COMPRESS_PAGE = 0x100;
const MULTIFD_FLUSH = 0x200;

const PAGE_RECORDS = [ZERO, PAGE, XBZRLE, COMPRESS_PAGE];

export const LAST_ZERO = 1;
export const LAST_NORMAL = 2;
const LAST_XBZRLE = 3;

const MAX_GUEST_BYTES = 2n ** 46n;
const MAPPED_RAM_HEADER_BYTES = 28;

interface Page {
  last: number;
  /** undefined for a page of zeros */
  data: Uint8Array | undefined;
}

export class RamBlock {
  readonly pages = new Map<number, Page>();
  /** Pages that the destination was told to discard: `[first, end)`. They must be sent again. */
  readonly discarded: [first: number, end: number][] = [];
  /** The byte up to which discards have advanced. */
  discardedTo = 0n;
  readonly idstr: string;
  readonly usedLength: number;
  readonly pageSize: number;

  constructor(idstr: string, usedLength: number, pageSize: number) {
    this.idstr = idstr;
    this.usedLength = usedLength;
    this.pageSize = pageSize;
  }

  /** All bytes of the block; zero where a page is zero or missing. */
  content(): Uint8Array {
    const content = new Uint8Array(this.usedLength);
    for (const [page, { data }] of this.pages) {
      if (data !== undefined) content.set(data, page * this.pageSize);
    }
    return content;
  }

  setPage(page: number, last: number, data: Uint8Array | undefined): void {
    this.pages.set(page, { last, data });
  }

  /** The number of discarded pages that were not sent again. */
  lostPages(): number {
    return this.discarded.reduce((sum, [first, end]) => {
      const come = [...this.pages.keys()].filter((page) => page >= first && page < end).length;
      return sum + end - first - come;
    }, 0);
  }

  /** The kind of the last record of every page. */
  last(): Uint8Array {
    const last = new Uint8Array(this.usedLength / this.pageSize);
    for (const [page, { last: kind }] of this.pages) last[page] = kind;
    return last;
  }
}

/** An XBZRLE record as received, and the page before and after it. */
export interface RecordedDelta {
  before: Uint8Array;
  after: Uint8Array;
  delta: Uint8Array;
}

/** Facts from the rest of the stream that affect how RAM is read. */
export interface RamContext {
  pageSize: number;
  mappedRam: boolean;
  ignoreShared: boolean;
  /** Word 0 of a 16-byte POSTCOPY_ADVISE: the page sizes of all RAM blocks, or-ed. */
  advisedPageSizes: bigint | undefined;
}

export class Ram {
  readonly blocks: RamBlock[] = [];
  /** Called for every XBZRLE record. */
  onDelta: ((recorded: RecordedDelta) => void) | undefined;
  /** The source of records: one file, or another that continues it. */
  cursor: Cursor;
  /** After the switchover, only zero and plain pages are valid. */
  isPostcopy = false;
  private readonly context: RamContext;
  private hasList = false;
  /** Called wherever the channels of a multifd migration must be read up to their next SYNC. */
  onMark: (() => void) | undefined;
  /** Without a MULTIFD_FLUSH in START, every EOS is such a place. */
  private isEosMark: boolean | undefined;
  /** The block of the previous page record, which CONTINUE refers to; it persists across sections. */
  private current: RamBlock | undefined;

  constructor(cursor: Cursor, context: RamContext) {
    this.cursor = cursor;
    this.context = context;
  }

  /** Reads records up to and including EOS. In a START, the first record must be the block list. */
  readBody(isStart: boolean): void {
    const { cursor, context } = this;
    let isListDue = isStart;
    let hasFlush = false;
    for (;;) {
      cursor.mark();
      const at = cursor.at;
      const word = cursor.u64('a RAM record');
      const flagBits = BigInt(context.pageSize - 1);
      const flags = Number(word & flagBits);
      const address = word & ~flagBits;
      const continues = (flags & CONTINUE) !== 0;
      const kind = flags & ~CONTINUE;

      if (isListDue && kind !== MEM_SIZE) throw cursor.error('the ram section does not start with its block list', at);
      if (!isListDue && kind === MEM_SIZE) throw cursor.error('a RAM block list that is not the first record', at);
      isListDue = false;

      if (PAGE_RECORDS.includes(kind)) {
        if (this.isPostcopy && kind !== ZERO && kind !== PAGE)
          throw cursor.error('a page of another kind in postcopy', at);
        if (context.mappedRam) throw cursor.error('a page record in a mapped-ram file', at);
        this.readPage(kind, address, continues, at);
        continue;
      }
      if (continues) throw cursor.error(`RAM flags 0x${flags.toString(16)}: CONTINUE without a page`, at);
      if (kind === MEM_SIZE) {
        this.readBlockList(address, at);
        continue;
      }
      if (kind !== EOS && kind !== MULTIFD_FLUSH)
        throw cursor.error(`RAM flags 0x${flags.toString(16)} mean nothing`, at);
      if (address !== 0n) throw cursor.error(`RAM flags 0x${flags.toString(16)} with an address`, at);
      if (kind === EOS) {
        cursor.mark();
        this.isEosMark ??= !hasFlush;
        if (this.isEosMark) this.onMark?.();
        return;
      }
      if (context.mappedRam) throw cursor.error('MULTIFD_FLUSH in a mapped-ram file', at);
      hasFlush = true;
      this.onMark?.();
    }
  }

  /** The next page must repeat its block's name. */
  forgetBlock(): void {
    this.current = undefined;
  }

  /** A preempt channel: page records up to the end of the file, or up to an EOS that is last. */
  readPreemptChannel(): void {
    const { cursor, context } = this;
    this.forgetBlock();
    while (cursor.at < cursor.limit) {
      cursor.mark();
      const at = cursor.at;
      const word = cursor.u64('a RAM record');
      if (word === BigInt(EOS)) {
        if (cursor.at < cursor.limit) throw cursor.error('bytes behind the EOS of a preempt channel');
        break;
      }
      const flagBits = BigInt(context.pageSize - 1);
      const flags = Number(word & flagBits);
      const kind = flags & ~CONTINUE;
      if (kind !== ZERO && kind !== PAGE)
        throw cursor.error(`RAM flags 0x${flags.toString(16)} in a preempt channel`, at);
      this.readPage(kind, word & ~flagBits, (flags & CONTINUE) !== 0, at);
    }
    cursor.mark();
  }

  /** POSTCOPY_RAM_DISCARD: u8 0, block name, u8 0, then ranges of bytes in ascending order. */
  readDiscard(length: number, at: number): void {
    const { cursor, context } = this;
    const end = cursor.at + length;
    if (end > cursor.limit) cursor.skip(length, 'a discard');
    if (length < 3 || cursor.u8('a discard') !== 0) throw cursor.error('a discard of another version', at);
    const nameLength = cursor.u8('a discard');
    if (cursor.at + nameLength + 1 > end) throw cursor.error('a discard that is cut', at);
    const name = cursor.text(nameLength, 'a discard');
    if (cursor.u8('a discard') !== 0) throw cursor.error('a discard whose name goes on', at);
    if ((end - cursor.at) % 16 !== 0) throw cursor.error('a discard of half a range', at);
    const block = this.blocks.find(({ idstr }) => idstr === name);
    if (block === undefined) throw cursor.error(`a discard of unknown block "${name}"`, at);
    const pageSize = BigInt(context.pageSize);
    while (cursor.at < end) {
      const first = cursor.u64('a discard');
      const bytes = cursor.u64('a discard');
      if (first < block.discardedTo || bytes === 0n || first + bytes > BigInt(block.usedLength)) {
        throw cursor.error('a discard out of order or outside its block', at);
      }
      if (first % pageSize !== 0n || bytes % pageSize !== 0n) throw cursor.error('a discard of half a page', at);
      block.discardedTo = first + bytes;
      for (const page of [...block.pages.keys()]) {
        if (BigInt(page) < first / pageSize || BigInt(page) >= block.discardedTo / pageSize) continue;
        block.pages.delete(page);
      }
      block.discarded.push([Number(first / pageSize), Number(block.discardedTo / pageSize)]);
    }
  }

  private readPage(kind: number, address: bigint, continues: boolean, at: number): void {
    const { cursor } = this;
    const { pageSize } = this.context;
    if (!continues) {
      const name = cursor.counted('the block name of a page');
      this.current = this.blocks.find((block) => block.idstr === name);
      if (this.current === undefined) throw cursor.error(`a page of unknown block "${name}"`, at);
    }
    const block = this.current;
    if (block === undefined) throw cursor.error('CONTINUE on the first page', at);
    if (address >= BigInt(block.usedLength)) throw cursor.error(`page 0x${address.toString(16)} outside its block`, at);
    const page = Number(address) / pageSize;

    switch (kind) {
      case ZERO: {
        const fill = cursor.u8('a zero page');
        if (fill !== 0) throw cursor.error(`a zero page filled with ${fill}`, at);
        block.setPage(page, LAST_ZERO, undefined);
        return;
      }
      case PAGE:
        block.setPage(page, LAST_NORMAL, cursor.take(pageSize, 'a page'));
        return;
      case COMPRESS_PAGE: {
        const packed = cursor.take(cursor.u32('the length of a compressed page'), 'a compressed page');
        block.pages.set(page, { last: LAST_NORMAL, data: this.inflatePage(packed, at) });
        return;
      }
      case XBZRLE: {
        const flag = cursor.u8('an XBZRLE page');
        if (flag !== 1) throw cursor.error(`XBZRLE flag byte ${flag}`, at);
        const length = cursor.u16('the length of an XBZRLE page');
        if (length > pageSize) throw cursor.error(`an XBZRLE page of ${length} bytes`, at);
        const delta = cursor.take(length, 'an XBZRLE page');
        // The delta applies to the previous content; a missing page counts as zeros.
        const data = new Uint8Array(pageSize);
        const before = block.pages.get(page)?.data;
        if (before !== undefined) data.set(before);
        applyDelta(data, delta, cursor.at - length);
        this.onDelta?.({ before: before ?? new Uint8Array(pageSize), after: data, delta });
        block.pages.set(page, { last: LAST_XBZRLE, data });
      }
    }
  }

  /** One complete zlib stream that decompresses to exactly one page, without extra bytes on either side. */
  private inflatePage(packed: Uint8Array, at: number): Uint8Array {
    const { pageSize } = this.context;
    let result: { buffer: Uint8Array; engine: { bytesWritten: number } };
    try {
      // Node's types do not cover the result with `info`: { buffer, engine }; bytesWritten is the consumed input.
      result = inflateSync(packed, { maxOutputLength: pageSize, info: true }) as unknown as typeof result;
    } catch (error) {
      throw this.cursor.error(`a compressed page does not inflate (${(error as Error).message})`, at);
    }
    if (result.buffer.length !== pageSize) throw this.cursor.error('a compressed page of another size', at);
    if (result.engine.bytesWritten !== packed.length) throw this.cursor.error('bytes behind a compressed page', at);
    return new Uint8Array(result.buffer);
  }

  private readBlockList(total: bigint, at: number): void {
    const { cursor, context } = this;
    if (this.hasList) throw cursor.error('a second RAM block list', at);
    this.hasList = true;
    if (total > MAX_GUEST_BYTES) throw cursor.error(`a guest of ${total} bytes`, at);

    let sum = 0n;
    while (sum < total) {
      cursor.mark();
      const entryAt = cursor.at;
      const idstr = cursor.counted('the name of a RAM block');
      if (idstr === '') throw cursor.error('a RAM block without a name', entryAt);
      if (this.blocks.some((block) => block.idstr === idstr))
        throw cursor.error(`a second RAM block "${idstr}"`, entryAt);
      const usedLength = cursor.size64('the length of a RAM block');
      if (usedLength % context.pageSize !== 0) throw cursor.error(`RAM block "${idstr}" has no whole pages`, entryAt);
      sum += BigInt(usedLength);
      if (sum > total) throw cursor.error(`the RAM blocks are larger than their total ${total}`, entryAt);

      const block = new RamBlock(idstr, usedLength, context.pageSize);
      this.blocks.push(block);
      if (this.isPageSizeWordNext()) cursor.skip(8, 'the page size of a RAM block');
      if (context.ignoreShared) cursor.skip(8, 'the address of a RAM block');
      if (context.mappedRam) this.readMappedRamBlock(block);
    }
  }

  /**
   * With postcopy, a block of huge pages has its page size in the list. No flag says so, but the alternatives at this
   * place (a counted name, or the word EOS or MULTIFD_FLUSH) never equal one of the advised sizes.
   */
  private isPageSizeWordNext(): boolean {
    const { cursor } = this;
    const advised = this.context.advisedPageSizes;
    if (advised === undefined || advised === 4096n) return false;
    if (cursor.limit - cursor.at < 8) return false;
    const at = cursor.at;
    const word = cursor.u64('a word');
    cursor.at = at;
    const isPowerOfTwo = word > 0n && (word & (word - 1n)) === 0n;
    return isPowerOfTwo && word > 4096n && (word & advised) !== 0n;
  }

  /** header, bitmap, hole, pages; then the next entry of the list. Offsets count from byte 0 of the file. */
  private readMappedRamBlock(block: RamBlock): void {
    const { cursor, context } = this;
    const { pageSize } = context;
    const at = cursor.at;
    if (context.ignoreShared && !this.isMappedRamHeaderNext()) return;
    cursor.mark();

    const version = cursor.u32('a mapped-ram header');
    if (version !== 1) throw cursor.error(`mapped-ram version ${version}`, at);
    const headerPageSize = cursor.size64('the page size of a mapped-ram header');
    if (headerPageSize !== pageSize)
      throw cursor.error(`a mapped-ram page size of ${headerPageSize}, not ${pageSize}`, at);
    const bitmapStart = cursor.size64('the bitmap offset of a mapped-ram header');
    const pagesStart = cursor.size64('the pages offset of a mapped-ram header');
    cursor.mark();

    const pageCount = block.usedLength / pageSize;
    const bitmapEnd = bitmapStart + Math.ceil(pageCount / 64) * 8;
    const pagesEnd = pagesStart + block.usedLength;
    if (bitmapStart < cursor.at) throw cursor.error('a bitmap that overlaps the mapped-ram header', at);
    if (bitmapEnd > pagesStart) throw cursor.error('a bitmap that overlaps the pages', at);
    if (pagesStart % pageSize !== 0) throw cursor.error('mapped-ram pages that are not aligned', at);

    cursor.at = bitmapStart;
    cursor.mark();
    const bitmap = cursor.take(bitmapEnd - bitmapStart, 'a mapped-ram bitmap');
    cursor.mark();

    for (let page = 0; page < bitmap.length * 8; page++) {
      // Little-endian words, bit 0 first: the same as bytes, bit 0 first.
      const isSet = ((bitmap[page >> 3]! >> (page & 7)) & 1) === 1;
      if (isSet) {
        if (page >= pageCount) throw cursor.error(`bit ${page} is beyond the last page`, bitmapStart + (page >> 3));
        cursor.at = pagesStart + page * pageSize;
        block.pages.set(page, { last: LAST_NORMAL, data: cursor.take(pageSize, `page ${page} of "${block.idstr}"`) });
      } else if (page < pageCount) {
        // The page area holds stale data here.
        block.pages.set(page, { last: LAST_ZERO, data: undefined });
      }
    }

    // The next entry follows this block's pages, so the regions of blocks cannot overlap or go backwards.
    cursor.at = pagesStart;
    cursor.mark();
    cursor.at = pagesEnd;
    cursor.mark();
  }

  /** With x-ignore-shared, some writers omit the header of an ignored block. */
  private isMappedRamHeaderNext(): boolean {
    const { cursor } = this;
    const at = cursor.at;
    if (cursor.limit - at < MAPPED_RAM_HEADER_BYTES) return false;
    const version = cursor.u32('a word');
    cursor.skip(8, 'a word');
    const bitmapOffset = cursor.u64('a word');
    cursor.at = at;
    return version === 1 && bitmapOffset === BigInt(at + MAPPED_RAM_HEADER_BYTES);
  }
}
