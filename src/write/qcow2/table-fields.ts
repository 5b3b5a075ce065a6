/**
 * The part of a qcow2 header that says where the tables are (docs/formats/qcow2.md, "Header"). It lies within one
 * sector, and vmferry replaces it with one write: an image changes from one whole state to the next.
 *
 *      24  size of the disk         48  refcount table     64  snapshot table
 *      36  entries of the L1 table  56  its clusters       72  incompatible features (version 3)
 *      40  L1 table                 60  snapshots          80  compatible features   88  autoclear features
 */
import { MigrationError, type Place } from '../../vm/migration-error.ts';

/** Where the fields begin in the file. */
export const fieldsOffset = 24;
const fieldsEndV2 = 72;
const fieldsEndV3 = 96;
const headerLengthV3 = 104;

/** Where the tables of an image are. Offsets and sizes in bytes. */
export interface TableFields {
  diskSize: number;
  l1Entries: number;
  l1Offset: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  /** Bits of a refcount: a power of two from 1 to 64. */
  readonly refcountBits: number;
  /** Features that a program may ignore. */
  readonly compatible: bigint;
  /** Features that a program must clear if it writes to the image without knowing them. */
  autoclear: bigint;
}

/** An autoclear feature: the bitmaps extension is consistent. */
export const autoclearBitmaps = 1n;
/** A compatible feature: refcounts may be wrong while the image is marked dirty. */
export const compatibleLazyRefcounts = 1n;

/** Decodes the fields from the beginning of an image. @throws MigrationError `bad-disk-image` for an impossible value. */
export function decodeTableFields(head: Uint8Array, place: Place): TableFields {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const fail = (message: string, at: number) =>
    new MigrationError('bad-disk-image', message, { ...place, offset: place.offset + at });
  const size = (at: number, what: string) => {
    const value = view.getBigUint64(at);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw fail(`expected ${what} below 2^53, got ${value}`, at);
    return Number(value);
  };
  const clusterSize = 2 ** view.getUint32(20);
  const offset = (at: number, what: string) => {
    const value = size(at, `an offset of ${what}`);
    if (value % clusterSize !== 0) throw fail(`expected ${what} at a cluster's start, got ${value}`, at);
    return value;
  };
  const isV3 = view.getUint32(4) === 3;
  const order = isV3 ? view.getUint32(fieldsEndV3) : 4;
  if (order > 6) throw fail(`expected refcounts of at most 64 bits, got an order of ${order}`, fieldsEndV3);
  return {
    diskSize: size(24, 'a disk size'),
    l1Entries: view.getUint32(36),
    l1Offset: offset(40, 'the L1 table'),
    refcountTableOffset: offset(48, 'the refcount table'),
    refcountTableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotsOffset: offset(64, 'the snapshot table'),
    refcountBits: 2 ** order,
    compatible: isV3 ? view.getBigUint64(80) : 0n,
    autoclear: isV3 ? view.getBigUint64(88) : 0n,
  };
}

/** Bytes of the header that {@link decodeTableFields} needs. */
export const fieldsHeadLength = (version: number) => (version === 3 ? headerLengthV3 : fieldsEndV2);

/** Encodes the fields over what stands in `head`. Returns the bytes from {@link fieldsOffset} on. */
export function encodeTableFields(head: Uint8Array, fields: TableFields): Uint8Array {
  const isV3 = head.length >= headerLengthV3;
  const bytes = head.slice(0, isV3 ? fieldsEndV3 : fieldsEndV2);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(24, BigInt(fields.diskSize));
  view.setUint32(36, fields.l1Entries);
  view.setBigUint64(40, BigInt(fields.l1Offset));
  view.setBigUint64(48, BigInt(fields.refcountTableOffset));
  view.setUint32(56, fields.refcountTableClusters);
  view.setUint32(60, fields.snapshotCount);
  view.setBigUint64(64, BigInt(fields.snapshotsOffset));
  if (isV3) view.setBigUint64(88, fields.autoclear);
  return bytes.subarray(fieldsOffset);
}
