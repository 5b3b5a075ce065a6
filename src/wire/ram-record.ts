/**
 * RAM records (docs/formats/ram.md, "Records"): the body of the `ram` section consists of them.
 *
 *     be64 word = offset in the block | flags
 *
 *     ZERO      [name] u8 0                      CONTINUE set: same block as the record before, no name
 *     PAGE      [name] page bytes                [name] = u8 length, bytes
 *     XBZRLE    [name] u8 1, be16 L, L bytes
 *     COMPRESS  [name] be32 L, L bytes
 *     MEM_SIZE, EOS, MULTIFD_FLUSH               see ram-section.ts
 *
 * {@link decodePageRecords} is the hot loop of reading a stream. It collects page records in a batch that refers to the
 * window's bytes. It copies nothing and never awaits. The kernel goes over the most frequent records, `assembly/ram-records.ts`.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { type Finding, type FindingCode, MigrationError, makeFinding } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { type ByteWindow, latin1 } from './byte-window.ts';

export const RamFlag = {
  full: 0x001,
  zero: 0x002,
  memSize: 0x004,
  page: 0x008,
  eos: 0x010,
  continue: 0x020,
  xbzrle: 0x040,
  hook: 0x080,
  compressPage: 0x100,
  multifdFlush: 0x200,
} as const;

/** The default size of a target page, in bytes. */
const defaultPageSize = 4096;

/** What the decoder remembers between records and between sections. */
export interface RamState {
  /** Target page size in bytes. */
  pageSize: number;
  blocks: RamBlock[];
  byName: Map<string, RamBlock>;
  /** The block of the latest page record, which CONTINUE refers to. */
  current: RamBlock | undefined;
  /** The position of the page scan, which only moves forward within a pass. */
  scan: { block: number; page: number };
  /** The guest runs at the destination. Pages come in the order in which it needs them, no longer in passes. */
  postcopy: boolean;
  /** A problem that the hot loop read past. Set when it returns `finding`. */
  finding: Finding | undefined;
  /** Bytes needed. Set when it returns `more`. */
  wanted: number;
  /** Whether the reading goes on behind damage, see `salvage.ts`. */
  partial: boolean;
}

export function makeRamState(pageSize = defaultPageSize): RamState {
  return {
    pageSize,
    blocks: [],
    byName: new Map(),
    current: undefined,
    scan: { block: -1, page: -1 },
    postcopy: false,
    finding: undefined,
    wanted: 0,
    partial: false,
  };
}

/** Why the hot loop stopped. */
export const Stop = {
  /** The batch must be processed before decoding can continue. */
  flush: 0,
  /** The window does not contain all of the next record, which has `ram.wanted` bytes. */
  more: 1,
  /** The next record is not a page record. */
  other: 2,
  /** The scan starts again at a lower address. The batch is empty. */
  wrap: 3,
  /** A record was skipped, see `ram.finding`. The batch is empty. */
  finding: 4,
} as const;
export type Stop = (typeof Stop)[keyof typeof Stop];

const pageFlags = RamFlag.zero | RamFlag.page | RamFlag.xbzrle | RamFlag.compressPage;
/** After the switchover each page comes once, whole. */
const postcopyFlags = RamFlag.zero | RamFlag.page;

/**
 * The most bytes that a compressed page may exceed the page size by: zlib's overhead for incompressible data, rounded
 * up.
 */
const compressSlack = 1024;

/**
 * Collects page records of one block, in ascending order, in `batch`, until something else comes. `batch.data` holds
 * indices into `window.bytes`. Afterwards the position is at the first record that was not collected.
 * @throws MigrationError for a record that makes the rest unreadable.
 */
export function decodePageRecords(window: ByteWindow, ram: RamState, batch: PageBatch): Stop {
  const { bytes, view, limit, base } = window;
  const { pageSize, scan } = ram;
  const mask = pageSize - 1;
  const known = ram.postcopy ? postcopyFlags : pageFlags;
  for (;;) {
    const start = window.position;
    if (limit - start < 8) return more(ram, 8);
    const low = view.getUint32(start + 4);
    const flags = low & mask;
    const kindFlag = flags & ~RamFlag.continue;
    if ((kindFlag & known) === 0 || (kindFlag & (kindFlag - 1)) !== 0) return Stop.other;

    // The block: named, or that of the previous record.
    let at = start + 8;
    let block = ram.current;
    if ((flags & RamFlag.continue) === 0) {
      if (limit - start < 9) return more(ram, 9);
      const nameLength = bytes[at] as number;
      if (limit - start < 9 + nameLength) return more(ram, 9 + nameLength);
      const name = latin1(bytes, at + 1, nameLength);
      block = ram.byName.get(name);
      if (block === undefined) {
        if (batch.count > 0) return Stop.flush;
        throw new MigrationError('unknown-block', `a page of RAM block "${name}", which was not listed`, {
          ...window.place(),
          section: 'ram',
        });
      }
      at += 1 + nameLength;
    } else if (block === undefined) {
      throw recordError(window, 'bad-ram-record', 'the first page record continues a block, but none was named');
    }
    if (batch.count === batch.capacity || (block !== ram.current && batch.count > 0)) return Stop.flush;

    // The payload.
    let kind: PageKind;
    let length = 0;
    if (kindFlag === RamFlag.page) {
      kind = PageKind.data;
      length = pageSize;
    } else if (kindFlag === RamFlag.zero) {
      kind = PageKind.zero;
      length = 1;
    } else if (kindFlag === RamFlag.xbzrle) {
      kind = PageKind.delta;
      if (limit - at < 3) return more(ram, at + 3 - start);
      const header = bytes[at] as number;
      length = view.getUint16(at + 1);
      if (header !== 1 || length > pageSize) {
        if (batch.count > 0) return Stop.flush;
        const got = header === 1 ? `${length} bytes` : `header byte ${header}`;
        throw recordError(
          window,
          'bad-delta',
          `expected header byte 1 and at most ${pageSize} bytes, got ${got}`,
          block,
        );
      }
      at += 3;
    } else {
      kind = PageKind.compressed;
      if (limit - at < 4) return more(ram, at + 4 - start);
      length = view.getUint32(at);
      if (length > pageSize + compressSlack) {
        if (batch.count > 0) return Stop.flush;
        throw recordError(window, 'bad-ram-record', `expected a compressed page, got ${length} bytes`, block);
      }
      at += 4;
    }
    if (limit - at < length) return more(ram, at + length - start);

    // Its place in the block, and in the pass.
    const address = view.getUint32(start) * 0x1_0000_0000 + ((low & ~mask) >>> 0);
    const page = address / pageSize;
    if (address >= block.usedLength || (kind === PageKind.zero && bytes[at] !== 0)) {
      if (batch.count > 0) return Stop.flush;
      ram.current = block;
      ram.finding =
        address >= block.usedLength
          ? note(
              window,
              'page-out-of-range',
              `expected an offset below ${block.usedLength}, got ${view.getBigUint64(start) - BigInt(flags)}`,
              block,
              page,
            )
          : note(window, 'bad-zero-page', `expected fill byte 0, got ${bytes[at]}`, block, page);
      window.position = at + length;
      return Stop.finding;
    }
    if (block.index < scan.block || (block.index === scan.block && page <= scan.page)) {
      if (batch.count > 0) return Stop.flush;
      scan.block = -1;
      return Stop.wrap;
    }
    scan.block = block.index;
    scan.page = page;
    ram.current = block;

    const size = at + length - start;
    batch.push(kind, page, base + start, size, at, kind === PageKind.zero ? 0 : length);
    window.position = at + length;
    if (kind === PageKind.data || kind === PageKind.zero) takeFollowing(window, ram, block, batch);
  }
}

/** Collects the whole and zero pages of the same block that follow, all at once. */
function takeFollowing(window: ByteWindow, { scan, pageSize }: RamState, block: RamBlock, batch: PageBatch): void {
  const { kernel, count } = batch;
  if (window.bytes.buffer !== kernel.bytes.buffer) return;
  const { position: at, limit, base } = window;
  const { usedLength } = block;
  batch.count = kernel.ramRecords(batch, { at, limit, base, pageSize, lastPage: scan.page, usedLength });
  if (batch.count === count) return;
  const last = batch.count - 1;
  scan.page = batch.page[last] as number;
  window.position = (batch.offset[last] as number) + (batch.size[last] as number) - base;
}

function more(ram: RamState, wanted: number): Stop {
  ram.wanted = wanted;
  return Stop.more;
}

function note(window: ByteWindow, code: FindingCode, message: string, block: RamBlock, page: number): Finding {
  return makeFinding(code, message, { ...window.place(), section: 'ram', block: block.idstr, page });
}

/** An error about the record at the window's position. */
export function recordError(window: ByteWindow, code: FindingCode, message: string, block?: RamBlock): MigrationError {
  const place = { ...window.place(), section: 'ram' };
  return new MigrationError(code, message, block === undefined ? place : { ...place, block: block.idstr });
}
