/**
 * The dirty bitmaps that a qcow2 image keeps (docs/formats/qcow2.md, "Bitmaps"): the header extension that leads to the
 * directory, and the directory.
 *
 *     extension: 0 bitmaps u32 │ 4 zero │ 8 bytes of the directory u64 │ 16 its offset u64
 *     entry:     0 table u64 │ 8 its entries u32 │ 12 flags u32 │ 16 type 1 │ 17 granularity bits │ 18 length of the name u16
 *                20 bytes of extra data u32 │ extra data │ name │ zeros up to a multiple of 8
 */
import { MigrationError, type Place } from '../../vm/migration-error.ts';
import { concat } from '../../wire/byte-window.ts';

/** A bitmap in an image. */
export interface BitmapEntry {
  readonly name: string;
  readonly granularityBits: number;
  /** It records when the image is opened. */
  readonly isAuto: boolean;
  /** Whoever opened the image has not closed it: the bits are not to be trusted. */
  readonly isInUse: boolean;
  readonly tableOffset: number;
  readonly tableEntries: number;
}

/** Where the directory is. Undefined members: there is none. */
export interface BitmapDirectory {
  readonly count: number;
  readonly offset: number;
  readonly bytes: number;
}

/** What stands behind the header in its cluster. */
export interface HeaderArea {
  readonly extensions: readonly { readonly type: number; readonly data: Uint8Array }[];
  /** The name of a backing file; empty if there is none. */
  readonly backing: Uint8Array;
}

const bitmapsType = 0x23852875;
const [inUse, auto] = [1, 2];
const entryHead = 24;
/** QEMU's limit. */
const maxBitmaps = 65_535;
const maxDirectoryBytes = 64 << 20;
const fail = (message: string, place: Place) => new MigrationError('bad-disk-image', message, place);
const padded = (length: number) => Math.ceil(length / 8) * 8;

/** Decodes the area from the whole first bytes of an image. @throws MigrationError `bad-disk-image` */
export function decodeHeaderArea(bytes: Uint8Array, place: Place): HeaderArea {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const extensions: { type: number; data: Uint8Array }[] = [];
  const [backingAt, backingLength] = [Number(view.getBigUint64(8)), view.getUint32(16)];
  if (backingAt + backingLength > bytes.length)
    throw fail('expected the name of the backing file in the first cluster', place);
  for (let at = view.getUint32(100); at + 8 <= bytes.length; ) {
    const [type, length] = [view.getUint32(at), view.getUint32(at + 4)];
    if (type === 0) break;
    if (at + 8 + length > bytes.length)
      throw fail(`expected a header extension within a cluster, got ${length} bytes`, place);
    extensions.push({ type, data: bytes.slice(at + 8, at + 8 + length) });
    at += 8 + padded(length);
  }
  return { extensions, backing: bytes.slice(backingAt, backingAt + (backingAt === 0 ? 0 : backingLength)) };
}

/** The area with another directory, over what stands in `bytes`. @throws MigrationError `unsupported` without space for it */
export function encodeHeaderArea(
  bytes: Uint8Array,
  { extensions, backing }: HeaderArea,
  directory: BitmapDirectory | undefined,
  place: Place,
): Uint8Array {
  const others = extensions.filter(({ type }) => type !== bitmapsType);
  const all =
    directory === undefined ? others : [{ type: bitmapsType, data: encodeDirectoryPlace(directory) }, ...others];
  const start = new DataView(bytes.buffer, bytes.byteOffset).getUint32(100);
  const length = all.reduce((sum, { data }) => sum + 8 + padded(data.length), start) + 8;
  if (length + backing.length > bytes.length) {
    throw new MigrationError('unsupported', 'the header has no space for bitmaps', place);
  }
  const area = new Uint8Array(bytes.length);
  area.set(bytes.subarray(0, start));
  const view = new DataView(area.buffer);
  let at = start;
  for (const { type, data } of all) {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    area.set(data, at + 8);
    at += 8 + padded(data.length);
  }
  if (backing.length > 0) view.setBigUint64(8, BigInt(length));
  area.set(backing, length);
  return area;
}

function encodeDirectoryPlace({ count, offset, bytes }: BitmapDirectory): Uint8Array {
  const view = new DataView(new ArrayBuffer(24));
  view.setUint32(0, count);
  view.setBigUint64(8, BigInt(bytes));
  view.setBigUint64(16, BigInt(offset));
  return new Uint8Array(view.buffer);
}

/** Where the directory is; undefined if there is none. @throws MigrationError `bad-disk-image` */
export function directoryIn({ extensions }: HeaderArea, place: Place): BitmapDirectory | undefined {
  const found = extensions.find(({ type }) => type === bitmapsType);
  if (found === undefined) return undefined;
  if (found.data.length !== 24) throw fail(`expected 24 bytes of bitmaps extension, got ${found.data.length}`, place);
  const view = new DataView(found.data.buffer, found.data.byteOffset);
  const [count, bytes, offset] = [view.getUint32(0), Number(view.getBigUint64(8)), Number(view.getBigUint64(16))];
  if (count === 0 || count > maxBitmaps || bytes > maxDirectoryBytes) {
    throw fail(`expected 1 to ${maxBitmaps} bitmaps in at most 64 MiB, got ${count} in ${bytes} bytes`, place);
  }
  return { count, offset, bytes };
}

/** @throws MigrationError `bad-disk-image` for a malformed directory; `unsupported` for what this does not know */
export function decodeDirectory(bytes: Uint8Array, place: Place): BitmapEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries: BitmapEntry[] = [];
  for (let at = 0; at < bytes.length; ) {
    const here = { ...place, offset: place.offset + at };
    if (at + entryHead > bytes.length) throw fail('expected a whole entry of the bitmap directory', here);
    const [flags, type, nameLength, extra] = [
      ...[view.getUint32(at + 12), view.getUint8(at + 16), view.getUint16(at + 18), view.getUint32(at + 20)],
    ] as [number, number, number, number];
    const end = at + padded(entryHead + extra + nameLength);
    if (end > bytes.length) throw fail('expected a whole entry of the bitmap directory', here);
    if (type !== 1 || (flags & ~(inUse | auto)) !== 0 || extra !== 0) {
      throw new MigrationError(
        'unsupported',
        `a bitmap has type ${type}, flags ${flags} and ${extra} bytes of extra data`,
        here,
      );
    }
    entries.push({
      name: new TextDecoder().decode(bytes.subarray(at + entryHead, at + entryHead + nameLength)),
      granularityBits: view.getUint8(at + 17),
      ...{ isAuto: (flags & auto) !== 0, isInUse: (flags & inUse) !== 0 },
      ...{ tableOffset: Number(view.getBigUint64(at)), tableEntries: view.getUint32(at + 8) },
    });
    at = end;
  }
  return entries;
}

export function encodeDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  const parts = entries.map(({ name, granularityBits, isAuto, isInUse, tableOffset, tableEntries }) => {
    const text = new TextEncoder().encode(name);
    const bytes = new Uint8Array(padded(entryHead + text.length));
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(tableOffset));
    view.setUint32(8, tableEntries);
    view.setUint32(12, (isInUse ? inUse : 0) | (isAuto ? auto : 0));
    view.setUint8(16, 1);
    view.setUint8(17, granularityBits);
    view.setUint16(18, text.length);
    bytes.set(text, entryHead);
    return bytes;
  });
  return concat(parts);
}

/** The clusters of a bitmap's data: an offset, 0 for zeros, or 1 for ones. */
export const decodeBitmapTable = (bytes: Uint8Array): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / 8 }, (_, i) => Number(view.getBigUint64(8 * i)));
};

export function encodeBitmapTable(clusters: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 * clusters.length));
  for (const [i, offset] of clusters.entries()) view.setBigUint64(8 * i, BigInt(offset));
  return new Uint8Array(view.buffer);
}
