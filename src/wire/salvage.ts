/**
 * Reading on behind damage, if a caller wants all that a damaged stream still has. The decoders never search: they throw
 * at the first byte that contradicts the format. Here is how they find the next place that fits.
 *
 *     ram       | record | record |## damage ##| record | record | record |      three records in a row, or the end
 *                                              ^ goes on here                     of the body and its footer
 *     channel   | packet | payload |## damage ##| packet |                       the magic bytes of a packet
 */

import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import { type ByteWindow, latin1, maxNeed, type Need } from './byte-window.ts';
import { multifdMagic, multifdVersion } from './multifd-packet.ts';
import { RamFlag, type RamState } from './ram-record.ts';
import { SectionType } from './section-type.ts';

/** Errors about the kind of input, or about parts that do not belong together. */
const otherFaults: ReadonlySet<string> = new Set([
  'not-a-migration-stream',
  'unsupported-version',
  'bad-channel',
  'mismatched-source',
  'changes-only',
  'wrong-base',
]);

/** Whether an error is about damaged or missing bytes, so that the rest of the input may still be good. */
export function isDamage(error: unknown): error is MigrationError {
  return error instanceof MigrationError && !otherFaults.has(error.code);
}

/** Whether an error is about bytes that are there: a search for the next good place makes sense. */
export function isWithinDamage(error: unknown): error is MigrationError {
  return isDamage(error) && error.code !== 'truncated' && error.code !== 'sync-missing';
}

/** Records in a row that are enough to recognize RAM. */
const chainLength = 3;

/** The place where a scan was, and where it goes on. */
interface ScanPlace {
  block: number;
  page: number;
}

/**
 * Moves the window to the next place where the records of a RAM body go on, and yields discards for the pages that may
 * have been between. Returns whether there is such a place; otherwise the window is at its end.
 */
export function* findRecords(
  window: ByteWindow,
  ram: RamState,
  sectionId: number,
): Generator<Need | FlowItem, boolean> {
  const damaged = window.offset;
  const before = { ...ram.scan };
  window.position += 1;
  const found = yield* scan(window, (at) => recordsAt(window, at, ram, sectionId, damaged));
  if (found === undefined) return false;
  if (found.first !== undefined) yield* discardBetween(ram, before, found.first);
  return true;
}

/**
 * Moves the window to the next PART or END of RAM, which may begin at its position. Returns whether there is one;
 * otherwise the window is at its end.
 */
export function* findRamSection(window: ByteWindow, ram: RamState, sectionId: number): Generator<Need, boolean> {
  const damaged = window.offset;
  const found = yield* scan(window, (at) => {
    const type = window.bytes[at];
    if (type !== SectionType.part && type !== SectionType.end) return undefined;
    if (window.limit - at < 13 || window.view.getUint32(at + 1) !== sectionId) return undefined;
    return recordsAt(window, at + 5, ram, sectionId, damaged);
  });
  return found !== undefined;
}

/**
 * Moves the window to the next multifd packet, which may begin at its position. Returns whether there is one; otherwise
 * the window is at its end.
 */
export function* findPacket(window: ByteWindow): Generator<Need, boolean> {
  const found = yield* scan(window, (at) => {
    if (window.limit - at < 8) return undefined;
    return window.view.getUint32(at) === multifdMagic && window.view.getUint32(at + 4) === multifdVersion
      ? at
      : undefined;
  });
  return found !== undefined;
}

/** Moves the window byte by byte until `test` returns something. `test` sees `maxNeed` bytes, or all that are left. */
function* scan<Found>(window: ByteWindow, test: (at: number) => Found | undefined): Generator<Need, Found | undefined> {
  for (;;) {
    if (window.available < maxNeed && !window.ended) yield { kind: 'more', bytes: maxNeed };
    const enough = window.ended ? 1 : maxNeed;
    while (window.available >= enough) {
      const found = test(window.position);
      if (found !== undefined) return found;
      window.position++;
    }
    if (window.ended && window.available === 0) return undefined;
  }
}

/** What {@link recordsAt} found: the page of the first record, if it is one of a page. */
interface FoundRecords {
  first: ScanPlace | undefined;
}

/** Whether RAM records go on at an index of the window: several in a row, or the end of the body with its footer. */
function recordsAt(
  window: ByteWindow,
  start: number,
  ram: RamState,
  sectionId: number,
  damaged: number,
): FoundRecords | undefined {
  let first: ScanPlace | undefined;
  let at = start;
  let block: RamBlock | undefined;
  for (let records = 0; ; records++) {
    if (isEnd(window, at, sectionId)) return { first };
    if (records === chainLength) return { first };
    const record = recordAt(window, at, ram, block);
    if (record === undefined) return undefined;
    if (record === 'cut') return records > 0 ? { first } : undefined;
    if (record.flags === RamFlag.multifdFlush) {
      at = record.end;
      continue;
    }
    // Without a name the record continues a block. Whether it is the same block, its page must show.
    const isSame = record.isNamed || block !== undefined || continues(window, start, ram, record.page, damaged);
    if (!isSame) return undefined;
    block = record.block;
    first ??= { block: block.index, page: record.page };
    at = record.end;
  }
}

/** Whether EOS is at an index, with the footer of the section behind it. */
function isEnd({ bytes, view, limit }: ByteWindow, at: number, sectionId: number): boolean {
  if (limit - at < 13) return false;
  if (view.getUint32(at) !== 0 || view.getUint32(at + 4) !== RamFlag.eos) return false;
  return bytes[at + 8] === SectionType.footer && view.getUint32(at + 9) === sectionId;
}

interface SeenRecord {
  flags: number;
  block: RamBlock;
  isNamed: boolean;
  page: number;
  /** Index after the record. */
  end: number;
}

/** The record at an index, if it can be one. `cut`: the window ends within it. */
function recordAt(
  { bytes, view, limit }: ByteWindow,
  start: number,
  ram: RamState,
  previous: RamBlock | undefined,
): SeenRecord | 'cut' | undefined {
  if (limit - start < 8) return 'cut';
  const low = view.getUint32(start + 4);
  const flags = low & (ram.pageSize - 1);
  const kind = flags & ~RamFlag.continue;
  let at = start + 8;
  if (kind === RamFlag.multifdFlush && low === kind && view.getUint32(start) === 0) {
    return { flags: kind, block: previous as RamBlock, isNamed: false, page: 0, end: at };
  }
  const isPage =
    kind === RamFlag.zero || kind === RamFlag.page || kind === RamFlag.xbzrle || kind === RamFlag.compressPage;
  if (!isPage) return undefined;
  let block = previous ?? ram.current;
  const isNamed = (flags & RamFlag.continue) === 0;
  if (isNamed) {
    if (limit - at < 1) return 'cut';
    const length = bytes[at] as number;
    if (limit - at < 1 + length) return 'cut';
    block = ram.byName.get(latin1(bytes, at + 1, length));
    at += 1 + length;
  }
  const address = view.getUint32(start) * 0x1_0000_0000 + ((low & ~(ram.pageSize - 1)) >>> 0);
  if (block === undefined || address >= block.usedLength) return undefined;
  const length = payloadLength(bytes, view, at, limit, kind, ram.pageSize);
  if (length === undefined) return undefined;
  if (length === 'cut' || limit - at < length) return 'cut';
  return { flags, block, isNamed, page: address / ram.pageSize, end: at + length };
}

/** Bytes of a record's payload, or undefined if no such payload begins at the index. */
function payloadLength(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  limit: number,
  kind: number,
  pageSize: number,
): number | 'cut' | undefined {
  if (kind === RamFlag.page) return pageSize;
  if (limit - at < 4) return limit - at >= 1 && kind === RamFlag.zero ? (bytes[at] === 0 ? 1 : undefined) : 'cut';
  if (kind === RamFlag.zero) return bytes[at] === 0 ? 1 : undefined;
  if (kind === RamFlag.xbzrle) {
    const length = view.getUint16(at + 1);
    return bytes[at] === 1 && length <= pageSize ? 3 + length : undefined;
  }
  const length = view.getUint32(at);
  return length <= pageSize + 1024 ? 4 + length : undefined;
}

/**
 * Whether a record without a name can be of the block that was read last: the scan moved forward, by at least as many
 * pages as the damaged bytes must have held.
 */
function continues({ base }: ByteWindow, at: number, ram: RamState, page: number, damaged: number): boolean {
  const { block, page: last } = ram.scan;
  if (ram.current === undefined || ram.current.index !== block || page <= last) return false;
  const lost = Math.max(1, Math.floor((base + at - damaged) / (ram.pageSize + 8 + 256)));
  return page - last - 1 >= lost;
}

/** Discards the pages between two places of the scan: a copy of them may have been lost. */
function* discardBetween({ blocks }: RamState, from: ScanPlace, to: ScanPlace): Generator<FlowItem, void> {
  const isForward = from.block < to.block || (from.block === to.block && from.page < to.page);
  if (isForward) yield* discardAhead(blocks, from, to);
  else {
    // The scan began again.
    yield* discardAhead(blocks, from, { block: blocks.length, page: 0 });
    yield* discardAhead(blocks, { block: -1, page: -1 }, to);
  }
}

/** Discards the pages after `from` and before `to`, in the order of the scan. */
function* discardAhead(blocks: readonly RamBlock[], from: ScanPlace, to: ScanPlace): Generator<FlowItem, void> {
  for (const block of blocks) {
    if (block.index < from.block || block.index > to.block) continue;
    const firstPage = block.index === from.block ? from.page + 1 : 0;
    const end = block.index === to.block ? to.page : pageCount(block);
    if (end > firstPage) yield { kind: 'discard', block, firstPage, pages: end - firstPage };
  }
}
