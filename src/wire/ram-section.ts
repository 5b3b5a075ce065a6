/**
 * The body of the `ram` section (docs/formats/ram.md): the block list (in START only), page records, and EOS.
 *
 *     be64 total | MEM_SIZE, then until the lengths add up to total:
 *       counted idstr | be64 used length | [be64 host page size] | [be64 guest address] | [mapped-ram header]
 *
 * The list does not say which of the optional words it contains. POSTCOPY_ADVISE and the capabilities determine that.
 */
import type { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem, PageSizeFrom } from '../vm/flow.ts';
import { MigrationError, makeFinding } from '../vm/migration-error.ts';
import { type MappedPlace, maxRamBytes, type RamBlock } from '../vm/ram-block.ts';
import { type ByteWindow, concat, has, type Need, need, takeSize, takeString, takeU64 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import {
  atMappedHeader,
  decodeBitmap,
  decodeMappedHeader,
  decodeMappedPages,
  mappedAlignment,
  placeMapped,
} from './mapped-ram.ts';
import { detectPageSize } from './page-size.ts';
import { decodePageRecords, RamFlag, type RamState, recordError, Stop } from './ram-record.ts';
import { findRecords, isWithinDamage } from './salvage.ts';
import type { SectionHead } from './section.ts';

/** The version of the `ram` section that every QEMU since 2009 writes. */
export const ramVersion = 4;

/** What determines the layout of the block list, from earlier in the stream. */
export interface RamFormat {
  mappedRam: boolean;
  ignoreShared: boolean;
  /** Word 0 of POSTCOPY_ADVISE: the OR of all RAM page sizes. Undefined: no advice, so no host page sizes. */
  advisedPageSizes: bigint | undefined;
  /**
   * How the target page size was determined so far. A mapped-ram header may correct a size that the stream did not
   * state.
   */
  pageSizeFrom: PageSizeFrom;
  /** `pages`: also the content of mapped-ram files. `bitmaps`: only which pages exist, without reading them. */
  read: 'pages' | 'bitmaps';
  /**
   * Every EOS is a multifd mark, because no MULTIFD_FLUSH came before the first one. Undefined: not known to be
   * multifd, or not yet known.
   */
  syncAtEos: boolean | undefined;
  /** The stream is the main channel of a multifd migration whose channels were given. */
  hasChannels: boolean;
  /** Whether the page size may be found by looking ahead at the first records. A live source with channels may wait. */
  looksAhead: boolean;
  /** The machine is one of AVR, whose pages have 256 bytes unless they show another size. */
  isAvr?: boolean;
}

/** Decodes the body of a START, PART or END up to and including its EOS. */
export function* decodeRamBody(
  window: ByteWindow,
  ram: RamState,
  format: RamFormat,
  section: SectionHead,
  batch: PageBatch,
): Generator<Need | FlowItem, void> {
  if (section.kind === 'start' || section.kind === 'full') yield* decodeBlockList(window, ram, format, batch);
  const seen = { flush: false };
  for (;;) {
    try {
      yield* decodeRecords(window, ram, format, batch, seen);
      break;
    } catch (error) {
      if (!ram.partial || format.mappedRam || !isWithinDamage(error)) throw error;
      yield { kind: 'finding', finding: error.toFinding() };
      if (!(yield* findRecords(window, ram, section.id))) {
        throw new MigrationError('truncated', 'the end of RAM is lost', window.place());
      }
    }
  }
  if (format.hasChannels) {
    // QEMU before 8.1, and machine types before 8.1, have a mark at the end of each body, including START.
    format.syncAtEos ??= !seen.flush;
    if (format.syncAtEos) yield { kind: 'sync', offset: window.offset, channels: 0 };
  }
  window.position += 8;
}

/** Decodes records up to EOS, which it leaves unread. Sets `seen.flush` at a mark for multifd channels. */
function* decodeRecords(
  window: ByteWindow,
  ram: RamState,
  format: RamFormat,
  batch: PageBatch,
  seen: { flush: boolean },
): Generator<Need | FlowItem, void> {
  for (;;) {
    if (!format.mappedRam) yield* decodePages(window, ram, batch);
    yield* need(window, 8, 'a RAM record');
    const address = window.view.getBigUint64(window.position);
    const flags = Number(address & BigInt(ram.pageSize - 1));
    if (address !== BigInt(flags))
      throw recordError(window, 'bad-ram-record', describeFlags(flags, ' with an address'));
    if (flags === RamFlag.eos) return;
    if (flags !== RamFlag.multifdFlush || format.mappedRam) {
      throw recordError(
        window,
        'bad-ram-record',
        describeFlags(flags, format.mappedRam ? ' in a mapped-ram file' : ''),
      );
    }
    seen.flush = true;
    yield { kind: 'sync', offset: window.offset, channels: 0 };
    window.position += 8;
  }
}

function describeFlags(flags: number, where: string): string {
  const names = Object.entries(RamFlag).filter(([, flag]) => (flags & flag) !== 0);
  const text = names.length > 0 ? ` (${names.map(([name]) => name).join(', ')})` : '';
  return `expected a RAM record of a known kind, got flags 0x${flags.toString(16)}${text}${where}`;
}

/** Yields batches of page records until a record of another kind comes. `bare` records may also end with the source. */
export function* decodePages(
  window: ByteWindow,
  ram: RamState,
  batch: PageBatch,
  framing: 'section' | 'bare' = 'section',
): Generator<Need | FlowItem, void> {
  batch.begin(window.origin);
  for (;;) {
    const stop = decodePageRecords(window, ram, batch);
    if (batch.count > 0) {
      yield { kind: 'pages', block: ram.current as RamBlock, batch };
      batch.clear();
    }
    if (stop === Stop.more) {
      if (framing === 'bare' && !(yield* has(window, 1))) return;
      yield* need(window, ram.wanted, 'a RAM record');
    }
    if (stop === Stop.wrap && !ram.postcopy) yield { kind: 'pass-end', offset: window.offset };
    else if (stop === Stop.finding && ram.finding !== undefined) {
      yield { kind: 'finding', finding: ram.finding };
      const { code, place } = ram.finding;
      // An earlier copy of the page is stale.
      if (ram.partial && code === 'bad-zero-page' && place.page !== undefined) {
        yield { kind: 'discard', block: ram.current as RamBlock, firstPage: place.page, pages: 1 };
      }
    } else if (stop === Stop.other) return;
  }
}

function* decodeBlockList(
  window: ByteWindow,
  ram: RamState,
  format: RamFormat,
  batch: PageBatch,
): Generator<Need | FlowItem, void> {
  if (format.looksAhead && format.pageSizeFrom === 'assumed' && !format.mappedRam && ram.byName.size === 0) {
    const pageSize = yield* detectPageSize(window, format.ignoreShared);
    if (pageSize !== undefined) {
      ram.pageSize = pageSize;
      format.pageSizeFrom = 'pages';
    } else if (format.isAvr === true) {
      // Their flags take only the 8 low bits of a word.
      const place = { ...window.place(), section: 'ram' };
      throw new MigrationError('unsupported', 'pages of 256 bytes, as of AVR, are not read', place);
    }
  }
  const listOffset = window.offset;
  yield* need(window, 8, 'the size of RAM');
  const bad = (message: string) =>
    new MigrationError('bad-block-list', message, { ...window.place(listOffset), section: 'ram' });
  const word = yield* takeU64(window, 'the size of RAM');
  if (ram.byName.size > 0) throw bad('a second RAM block list');
  const mask = BigInt(ram.pageSize - 1);
  if ((word & mask) !== BigInt(RamFlag.memSize))
    throw bad(`expected a RAM block list, got word 0x${word.toString(16)}`);
  const total = word & ~mask;
  if (total > BigInt(maxRamBytes)) {
    throw new MigrationError('limit-exceeded', `expected at most ${maxRamBytes} bytes of RAM, got ${total}`, {
      ...window.place(listOffset),
      section: 'ram',
    });
  }
  let left = Number(total);
  while (left > 0) {
    const offset = window.offset;
    const idstr = yield* takeString(window, 'a RAM block name');
    const usedLength = yield* takeSize(window, 'the length of a RAM block');
    if (idstr === '' || ram.byName.has(idstr)) throw bad(`expected a new RAM block name, got "${idstr}"`);
    if (usedLength > left || usedLength % ram.pageSize !== 0) {
      const expected = `a multiple of ${ram.pageSize} bytes, at most ${left}`;
      throw new MigrationError('bad-block-list', `expected ${expected}, got ${usedLength}`, {
        ...window.place(offset),
        section: 'ram',
        block: idstr,
      });
    }
    left -= usedLength;
    const block = yield* decodeBlockEntry(window, ram, format, idstr, usedLength);
    if (ram.byName.size >= maxBlocks) throw bad(`expected at most ${maxBlocks} RAM blocks`);
    ram.blocks.push(block);
    ram.byName.set(idstr, block);
    yield { kind: 'block', block };
    if (block.mapped !== undefined) yield* decodeMappedBlock(window, block, block.mapped, format, batch, ram.partial);
  }
  // Everything after the last block is needed. The position stays.
  if (format.mappedRam) yield { kind: 'seek', offset: window.offset, length: Number.POSITIVE_INFINITY };
  yield { kind: 'blocks-end', totalBytes: Number(total), pageSizeFrom: format.pageSizeFrom };
}

/** QEMU guests have tens of blocks. */
const maxBlocks = 8192;

/** Decodes the optional words of a block list entry. */
function* decodeBlockEntry(
  window: ByteWindow,
  ram: RamState,
  format: RamFormat,
  idstr: string,
  usedLength: number,
): Generator<Need | FlowItem, RamBlock> {
  const base = { index: ram.blocks.length, idstr, usedLength };
  const optional: { hostPageSize?: number; guestAddress?: bigint; mapped?: MappedPlace } = {};
  if (yield* atHostPageSize(window, format)) {
    optional.hostPageSize = yield* takeSize(window, 'a host page size');
  }
  if (format.ignoreShared) optional.guestAddress = yield* takeU64(window, 'a guest address');
  if (format.mappedRam && (!format.ignoreShared || (yield* atMappedHeader(window)))) {
    const expected = format.pageSizeFrom !== 'stream' && ram.blocks.length === 0 ? undefined : ram.pageSize;
    const { place, pageSize } = yield* decodeMappedHeaderOf(window, ram, idstr, usedLength, expected);
    ram.pageSize = pageSize;
    format.pageSizeFrom = 'stream';
    optional.mapped = place;
  }
  return { ...base, pageSize: ram.pageSize, ...optional };
}

/**
 * Decodes the mapped-ram header of a block. With `partial`, the parts of a block with a damaged header are assumed to be
 * where QEMU puts them.
 */
function* decodeMappedHeaderOf(
  window: ByteWindow,
  ram: RamState,
  idstr: string,
  usedLength: number,
  expected: number | undefined,
): Generator<Need | FlowItem, { place: MappedPlace; pageSize: number }> {
  const offset = window.offset;
  try {
    return yield* decodeMappedHeader(window, idstr, usedLength, expected);
  } catch (error) {
    if (!ram.partial || !isWithinDamage(error)) throw error;
    yield { kind: 'finding', finding: error.toFinding() };
    const pageSize = expected ?? ram.pageSize;
    return { place: placeMapped(offset, Math.ceil(usedLength / pageSize)), pageSize };
  }
}

/**
 * Whether the next word is a host page size. It is one only if the advice contains page sizes above 4 KiB, and if the
 * word is a power of two above 4096 that is part of the advice. Neither a name nor a record word looks like that.
 */
function* atHostPageSize(window: ByteWindow, format: RamFormat): Generator<Need, boolean> {
  const advised = format.advisedPageSizes;
  if (advised === undefined || advised === 4096n || format.mappedRam) return false;
  if (!(yield* has(window, 8))) return false;
  const word = window.view.getBigUint64(window.position);
  return word > 4096n && (word & (word - 1n)) === 0n && (advised & word) === word;
}

/** Decodes what follows a mapped-ram entry: the bitmap and the pages. */
function* decodeMappedBlock(
  window: ByteWindow,
  block: RamBlock,
  place: MappedPlace,
  format: RamFormat,
  batch: PageBatch,
  isPartial: boolean,
): Generator<Need | FlowItem, void> {
  if (place.pagesOffset % mappedAlignment !== 0) {
    const where = { ...window.place(place.pagesOffset), section: 'ram', block: block.idstr };
    yield { kind: 'finding', finding: makeFinding('unaligned-pages', 'pages are not aligned to 1 MiB', where) };
  }
  const pagesEnd = place.pagesOffset + block.usedLength;
  yield { kind: 'seek', offset: place.bitmapOffset, length: place.bitmapLength };
  // If the file is too short for all pages, none is read: a false size must not cost more work than the file has bytes.
  if (format.read === 'pages' && pagesEnd > window.size && !isPartial) {
    const message = `expected the pages of RAM block "${block.idstr}" to end at ${pagesEnd}, got ${window.size} bytes`;
    const where = { ...window.place(window.size), block: block.idstr };
    throw new MigrationError('truncated', message, where);
  }
  if (format.read === 'bitmaps') {
    yield* decodeBitmap(window, block, place, isPartial);
  } else {
    const parts: Uint8Array[] = [];
    for (const item of decodeBitmap(window, block, place, isPartial)) {
      if (item.kind === 'bitmap') parts.push(item.bits.slice());
      else yield item;
    }
    yield* decodeMappedPages(window, block, place, concat(parts), batch);
  }
  yield { kind: 'seek', offset: pagesEnd };
}

/** Encodes the first word of the block list, the total length of all blocks. The body of START begins with it. */
export function encodeMemSize(out: ByteWriter, totalBytes: number): void {
  out.u64(BigInt(totalBytes) | BigInt(RamFlag.memSize));
}

/** Encodes a block list entry with the given optional words. A mapped-ram header may follow. */
export function encodeBlockEntry(
  out: ByteWriter,
  idstr: string,
  usedLength: number,
  { hostPageSize, guestAddress }: Pick<RamBlock, 'hostPageSize' | 'guestAddress'> = {},
): void {
  out.string(idstr).u64(usedLength);
  if (hostPageSize !== undefined) out.u64(hostPageSize);
  if (guestAddress !== undefined) out.u64(guestAddress);
}

/** Encodes the end of the body of every RAM section: START, PART and END. A footer follows. */
export function encodeEos(out: ByteWriter): void {
  out.u64(RamFlag.eos);
}

/** Encodes a mark for the multifd channels. Each channel has a SYNC for it. */
export function encodeMultifdFlush(out: ByteWriter): void {
  out.u64(RamFlag.multifdFlush);
}
