/**
 * Encodes RAM records (docs/formats/ram.md, "Records"), the inverse of `ram-record.ts`. It takes the same batches, and
 * writes the records with their payloads into a buffer in the arena. It never awaits, and allocates no object per page.
 * The caller decides when each page is sent, and in which section.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { type ByteWriter, requireName } from './byte-writer.ts';
import { RamFlag } from './ram-record.ts';

/** The output buffer, and what the encoder remembers between records and between sections. */
export interface RecordBuffer {
  /** The arena. Payloads are copied within it. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Index of the next record. */
  position: number;
  /** Index of the end of the buffer. */
  limit: number;
  /** The block of the latest record, which CONTINUE refers to. */
  current: RamBlock | undefined;
}

/** The tables of a batch that are encoded. */
type RecordTables = Pick<PageBatch, 'count' | 'kind' | 'page' | 'data' | 'length'>;

/**
 * The most bytes that a record has besides its payload: the word, a name, and the head of a delta or a compressed page.
 */
const maxHead = 8 + 1 + 255 + 4;

/** Bytes that are enough for any record. */
export const maxRecord = maxHead + 65536 + 1024;

/**
 * Encodes the records of a batch of `block` from `first` up to but not including `end`, as far as they fit. Returns the
 * first record that did not fit, or `end`. The buffer must not overlap the payloads.
 * @throws RangeError for an impossible record: an absent page, a page beyond the block, a payload that is too long, or
 *   outside the arena.
 */
export function encodePageRecords(
  buffer: RecordBuffer,
  block: RamBlock,
  batch: RecordTables,
  first = 0,
  end = batch.count,
): number {
  const { bytes, view, limit } = buffer;
  const { pageSize, idstr, usedLength } = block;
  requireName(idstr);
  let at = buffer.position;
  let i = first;
  for (; i < end; i++) {
    const kind = batch.kind[i] as number;
    const length = batch.length[i] as number;
    if (limit - at < maxHead + length) break;
    const address = (batch.page[i] as number) * pageSize;
    const flag = flagOf[kind] ?? 0;
    const most = kind === PageKind.compressed ? 2 * pageSize : pageSize;
    const isPage = kind !== PageKind.data || length === pageSize;
    if (flag === 0 || !isPage || length > most || !(address >= 0 && address < usedLength))
      throw badRecord(batch, i, block);

    const isNamed = buffer.current !== block;
    view.setUint32(at, Math.floor(address / 0x1_0000_0000));
    view.setUint32(at + 4, ((address >>> 0) | flag | (isNamed ? 0 : RamFlag.continue)) >>> 0);
    at += 8;
    if (isNamed) {
      bytes[at++] = idstr.length;
      for (let c = 0; c < idstr.length; c++) bytes[at++] = idstr.charCodeAt(c);
      buffer.current = block;
    }
    if (kind === PageKind.zero) {
      bytes[at++] = 0;
      continue;
    }
    if (kind === PageKind.delta) {
      bytes[at] = 1;
      view.setUint16(at + 1, length);
      at += 3;
    } else if (kind === PageKind.compressed) {
      view.setUint32(at, length);
      at += 4;
    }
    const from = batch.data[i] as number;
    if (from + length > bytes.length) throw badRecord(batch, i, block);
    bytes.copyWithin(at, from, from + length);
    at += length;
  }
  buffer.position = at;
  return i;
}

/** Bytes of a data record in front of its page, if it does not name its block. */
export const recordHead = 8;

/**
 * How many records from `first` on, up to `end`, are data whose pages lie one after another in the arena, with room for
 * their heads in between. All of them continue a record of `block`.
 */
export function countSpaced(block: RamBlock, batch: PageBatch, first: number, end: number): number {
  if (batch.room < recordHead) return 0;
  const { pageSize } = block;
  let i = first;
  for (; i < end; i++) {
    const isData = batch.kind[i] === PageKind.data && batch.length[i] === pageSize;
    const isNext = i === first || batch.data[i] === (batch.data[i - 1] as number) + recordHead + pageSize;
    if (!isData || !isNext) break;
  }
  return i - first;
}

/**
 * Makes records of pages where they lie: writes their heads in front of records `first` to `end - 1`, which
 * {@link countSpaced} has found. The records are then the bytes from the first head to the end of the last page.
 * @throws RangeError for a page beyond the block, or outside the arena.
 */
export function encodeHeadsInPlace(
  { bytes, view }: Pick<RecordBuffer, 'bytes' | 'view'>,
  block: RamBlock,
  batch: PageBatch,
  first: number,
  end: number,
): void {
  const { pageSize, usedLength } = block;
  for (let i = first; i < end; i++) {
    const address = (batch.page[i] as number) * pageSize;
    const data = batch.data[i] as number;
    if (!(address >= 0 && address < usedLength) || data + pageSize > bytes.length) throw badRecord(batch, i, block);
    view.setUint32(data - recordHead, Math.floor(address / 0x1_0000_0000));
    view.setUint32(data - 4, ((address >>> 0) | RamFlag.page | RamFlag.continue) >>> 0);
  }
}

/** One record of one page. */
export interface PageRecord {
  block: RamBlock;
  /** Index of the page in its block. */
  page: number;
  kind: PageKind;
  /** `PageKind.data`: the page; `.delta`: its XBZRLE encoding; `.compressed`: the page, compressed; `.zero`: nothing. */
  payload?: Uint8Array;
  /** The previous record was of the same block, so the name is omitted (CONTINUE). Default false. */
  continues?: boolean;
}

/**
 * Encodes a single record, independent of its neighbours. For many records a batch is faster (`StreamWriter.records`).
 * @throws RangeError for an impossible record: an absent page, a page beyond the block, a payload of another length.
 */
export function encodePageRecord(
  out: ByteWriter,
  { block, page, kind, payload = new Uint8Array(), continues = false }: PageRecord,
): void {
  const { length } = payload;
  const bytes = new Uint8Array(maxHead + 2 * length);
  const data = maxHead + length;
  bytes.set(payload, data);
  const limit = data;
  const buffer = {
    bytes,
    view: new DataView(bytes.buffer),
    position: 0,
    limit,
    current: continues ? block : undefined,
  };
  const tables = {
    ...{ count: 1, kind: Uint8Array.of(kind), page: Float64Array.of(page) },
    ...{ data: Uint32Array.of(data), length: Uint32Array.of(length) },
  };
  if (!Number.isInteger(page) || (kind === PageKind.zero && length > 0)) throw badRecord(tables, 0, block);
  encodePageRecords(buffer, block, tables);
  out.raw(bytes.subarray(0, buffer.position));
}

/** Whether a record that was decoded from the main stream named its block. Its size in the stream shows that. */
export function hadName(batch: PageBatch, i: number): boolean {
  const head = headOf[batch.kind[i] as number] ?? 0;
  return (batch.size[i] as number) > 8 + head + (batch.length[i] as number);
}

/** By `PageKind`: the bytes between the name and the payload, and the fill byte of a zero page. */
const headOf: readonly number[] = [0, 1, 0, 3, 4];

/** By `PageKind`. An absent page has no record. */
const flagOf: readonly number[] = [0, RamFlag.zero, RamFlag.page, RamFlag.xbzrle, RamFlag.compressPage];

function badRecord(batch: RecordTables, i: number, { idstr }: RamBlock): RangeError {
  const got = `kind ${batch.kind[i]} of ${batch.length[i]} bytes for page ${batch.page[i]}`;
  return new RangeError(`expected a record of a page of RAM block "${idstr}", got ${got}`);
}
