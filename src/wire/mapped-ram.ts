/**
 * mapped-ram (docs/formats/mapped-ram.md): a block's header, and the positions of its pages. All integers big-endian:
 *
 *     0   be32  version            1
 *     4   be64  page size          that of the target
 *     12  be64  bitmap offset      the byte after this header
 *     20  be64  pages offset       bitmap end, rounded up to 1 MiB
 *
 * Offsets count from the start of the file. In the bitmap (LSB first in the bytes of a little-endian host), bit i = 1
 * means that the page is at pages offset + i * page size. Bit i = 0 means that the page is zero, and that the bytes
 * there are stale.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { isBitSet } from '../vm/bits.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import { type MappedPlace, pageCount, type RamBlock } from '../vm/ram-block.ts';
import { type ByteWindow, has, type Need, need, takeSize, takeU32 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';

const mappedHeaderLength = 28;
/** Where QEMU aligns page areas, in bytes. */
export const mappedAlignment = 0x100000;

/** Bytes of a bitmap: whole 64-bit words. */
export function bitmapLength(pages: number): number {
  return Math.ceil(pages / 64) * 8;
}

/** Where the parts of a block of `pages` pages are if its header begins at file offset `header`. */
export function placeMapped(header: number, pages: number): MappedPlace {
  const bitmapOffset = header + mappedHeaderLength;
  const length = bitmapLength(pages);
  const pagesOffset = Math.ceil((bitmapOffset + length) / mappedAlignment) * mappedAlignment;
  return { bitmapOffset, bitmapLength: length, pagesOffset };
}

/** Encodes the header that follows a block's entry in a mapped-ram file. `place` comes from {@link placeMapped}. */
export function encodeMappedHeader(out: ByteWriter, pageSize: number, place: MappedPlace): void {
  out.u32(1).u64(pageSize).u64(place.bitmapOffset).u64(place.pagesOffset);
}

/**
 * Whether a header comes next. Without x-ignore-shared it always does. With x-ignore-shared, an ignored block may have
 * none; then the bytes at +12 are not the offset right after a header.
 */
export function* atMappedHeader(window: ByteWindow): Generator<Need, boolean> {
  if (!(yield* has(window, mappedHeaderLength))) return false;
  const { view, position } = window;
  return (
    view.getUint32(position) === 1 && view.getBigUint64(position + 12) === BigInt(window.offset + mappedHeaderLength)
  );
}

/**
 * Decodes the header of a block of `usedLength` bytes. If `pageSize` is undefined, the header's counts.
 * @throws MigrationError `bad-mapped-ram-header` for another version or page size, and for regions that overlap.
 */
export function* decodeMappedHeader(
  window: ByteWindow,
  idstr: string,
  usedLength: number,
  pageSize: number | undefined,
): Generator<Need, { place: MappedPlace; pageSize: number }> {
  const offset = window.offset;
  const bad = (message: string) =>
    new MigrationError('bad-mapped-ram-header', message, { ...window.place(offset), section: 'ram', block: idstr });
  const version = yield* takeU32(window, 'a mapped-ram version');
  if (version !== 1) throw bad(`expected mapped-ram version 1, got ${version}`);
  const size = yield* takeSize(window, 'a page size');
  const expected = pageSize ?? size;
  if (size !== expected || !isPageSize(size)) {
    throw bad(`expected page size ${pageSize ?? pageSizeRule}, got ${size}`);
  }
  if (usedLength % size !== 0) throw bad(`expected a page size that divides ${usedLength} bytes, got ${size}`);
  const bitmapOffset = yield* takeSize(window, 'a bitmap offset');
  const pagesOffset = yield* takeSize(window, 'a pages offset');
  const place = { bitmapOffset, bitmapLength: bitmapLength(usedLength / size), pagesOffset };
  if (bitmapOffset < window.offset) throw bad(`expected a bitmap after its header, got offset ${bitmapOffset}`);
  if (bitmapOffset + place.bitmapLength > pagesOffset) {
    throw bad(`expected pages after the bitmap's end ${bitmapOffset + place.bitmapLength}, got offset ${pagesOffset}`);
  }
  if (pagesOffset % size !== 0) throw bad(`expected a pages offset that is a multiple of ${size}, got ${pagesOffset}`);
  if (pagesOffset + usedLength > Number.MAX_SAFE_INTEGER) throw bad(`expected pages below 2^53, got ${pagesOffset}`);
  return { place, pageSize: size };
}

/** Bytes of bitmap passed on at a time: 512 Ki pages. */
const bitmapStep = 64 * 1024;

/**
 * Yields the bitmap of a block piece by piece. The window must already be at its position.
 * @throws MigrationError `bad-bitmap` for bits beyond the block; with `isPartial` it is a finding
 */
export function* decodeBitmap(
  window: ByteWindow,
  block: RamBlock,
  place: MappedPlace,
  isPartial = false,
): Generator<Need | (FlowItem & { kind: 'bitmap' | 'finding' }), void> {
  const pages = pageCount(block);
  for (let done = 0; done < place.bitmapLength; ) {
    yield* need(window, Math.min(8, place.bitmapLength - done), 'a mapped-ram bitmap');
    const step = Math.min(bitmapStep, place.bitmapLength - done, window.available & ~7);
    const bits = window.bytes.subarray(window.position, window.position + step);
    const firstPage = done * 8;
    const error = done + step === place.bitmapLength ? padding(window, block, bits, pages - firstPage) : undefined;
    if (error !== undefined && !isPartial) throw error;
    if (error !== undefined) yield { kind: 'finding', finding: error.toFinding() };
    yield { kind: 'bitmap', block, firstPage, bits };
    window.position += step;
    done += step;
  }
}

/** The error for bits beyond the last page of a block. */
function padding(window: ByteWindow, block: RamBlock, bits: Uint8Array, pages: number): MigrationError | undefined {
  for (let i = pages; i < bits.length * 8; i++) {
    if (isBitSet(bits, i)) {
      const message = `expected no bits from page ${pageCount(block)} on`;
      const place = { ...window.place(window.offset + (i >> 3)), section: 'ram', block: block.idstr };
      return new MigrationError('bad-bitmap', message, place);
    }
  }
  return undefined;
}

/** If fewer zero pages than this lie between data pages, they are read together. */
export const mergeGap = 8;
/** From a remote source, gaps are read along up to this part of the data pages in all. */
const gapShare = 0.04;
/** From a remote source, longer gaps are never read along, and shorter ones always, because a request costs more. */
const maxGapBytes = 1 << 20;
const minGapBytes = 32 * 1024;

/** Decides which gaps between data pages are read along with the pages around them. */
export type GapRule = (gapPages: number) => boolean;

const localGaps: GapRule = (gap) => gap < mergeGap;

/**
 * The gaps of a bitmap that are worth reading, because each of them saves a request: the shortest ones first, as long
 * as they are few compared with the data pages. Ask it about each gap once, in order.
 */
export function remoteGaps(bits: Uint8Array, pages: number, pageSize: number): GapRule {
  const most = Math.floor(maxGapBytes / pageSize);
  const counts = new Uint32Array(most + 1);
  let data = 0;
  for (let page = nextBit(bits, 0, pages, 1); page < pages; ) {
    const end = nextBit(bits, page, pages, 0);
    data += end - page;
    page = nextBit(bits, end, pages, 1);
    if (page < pages && page - end <= most) counts[page - end] = (counts[page - end] as number) + 1;
  }
  let budget = data * gapShare;
  let whole = 1;
  for (; whole <= most && whole * (counts[whole] as number) <= budget; whole++)
    budget -= whole * (counts[whole] as number);
  let more = Math.floor(budget / whole);
  return (gap) => {
    if (gap < whole || gap * pageSize < minGapBytes) return true;
    return gap === whole && gap <= most && more-- > 0;
  };
}

/** Index of the first bit in `[from, end)` that is `value`; `end` if there is none. */
export function nextBit(bits: Uint8Array, from: number, end: number, value: 0 | 1): number {
  const none = value === 1 ? 0x00 : 0xff;
  for (let i = from; i < end; ) {
    const byte = bits[i >> 3] as number;
    if ((i & 7) === 0 && byte === none) i += 8;
    else if (((byte >> (i & 7)) & 1) === value) return i;
    else i++;
  }
  return end;
}

/** The end of the pages that are read together from `first` on, whose bit is set, below `limit`. */
export function extentEnd(bits: Uint8Array, first: number, limit: number, isWorthReading: GapRule): number {
  for (let end = first; ; ) {
    end = nextBit(bits, end, limit, 0);
    const next = nextBit(bits, end, limit, 1);
    if (next === limit || !isWorthReading(next - end)) return end;
    end = next;
  }
}

/**
 * Yields batches of a block's pages, in order: zero where the bit is clear, data from the page area where it is set.
 * `bits` is the whole bitmap. The decoder seeks over everything else.
 */
export function* decodeMappedPages(
  window: ByteWindow,
  block: RamBlock,
  place: MappedPlace,
  bits: Uint8Array,
  batch: PageBatch,
): Generator<Need | (FlowItem & { kind: 'pages' }), void> {
  const pages = pageCount(block);
  const { pageSize } = block;
  const isWorthReading = window.isRemote ? remoteGaps(bits, pages, pageSize) : localGaps;
  const flush = { kind: 'pages', block, batch } as const;
  batch.begin(window.origin);
  let page = 0;
  while (page < pages) {
    if (!isBitSet(bits, page)) {
      if (batch.count === batch.capacity) {
        yield flush;
        batch.clear();
      }
      batch.push(PageKind.zero, page, place.pagesOffset + page * pageSize, 0, 0, 0);
      page++;
      continue;
    }
    const end = extentEnd(bits, page, pages, isWorthReading);
    const offset = place.pagesOffset + page * pageSize;
    if (batch.count > 0) yield flush;
    batch.clear();
    yield { kind: 'seek', offset, length: (end - page) * pageSize };
    for (; page < end; page++) {
      if (batch.count === batch.capacity || window.available < pageSize) {
        if (batch.count > 0) yield flush;
        batch.clear();
        yield* need(window, pageSize, `page ${page} of RAM block "${block.idstr}"`);
      }
      if (isBitSet(bits, page)) batch.push(PageKind.data, page, window.offset, pageSize, window.position, pageSize);
      else batch.push(PageKind.zero, page, window.offset, 0, 0, 0);
      window.position += pageSize;
    }
  }
  if (batch.count > 0) yield flush;
  batch.clear();
}
