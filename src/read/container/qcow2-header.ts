/**
 * qcow2 metadata, as far as it leads to the VM state of an internal snapshot (docs/formats/qcow2.md): the header, the
 * snapshot table, entries of L1 and L2 tables. All integers are big-endian. This file only decodes.
 */
import { MigrationError, type Place } from '../../vm/migration-error.ts';

export const qcow2Magic = 0x514649fb;
/** The part of the header that is read: up to and including the compression type. */
export const qcow2HeaderLength = 112;
const headerLengthV2 = 72;
const headerLengthV3 = 104;

/** Bits of the incompatible features. */
const Incompatible = { dirty: 1n, corrupt: 2n, externalData: 4n, compressionType: 8n, extendedL2: 16n } as const;
const knownIncompatible = 31n;

const encryptions = ['none', 'AES', 'LUKS'];

/** The most snapshots, like QEMU's limit. */
const maxSnapshots = 65_536;
/** The largest L1 table in bytes, like QEMU's limit. */
const maxL1Bytes = 32 << 20;

/** The header of a qcow2 image. */
export interface Qcow2Header {
  version: number;
  clusterBits: number;
  /** Bytes of the virtual disk. */
  diskSize: number;
  hasBackingFile: boolean;
  /** `none`, or the encryption method. */
  encryption: string;
  isDirty: boolean;
  isCorrupt: boolean;
  hasExternalData: boolean;
  hasExtendedL2: boolean;
  compression: 'deflate' | 'zstd';
  /** The unknown incompatible features, as bits. */
  unknownFeatures: bigint;
  snapshotCount: number;
  snapshotsOffset: number;
}

/** An internal snapshot. Sizes in bytes. */
export interface Qcow2Snapshot {
  id: string;
  name: string;
  /** Creation time by the host's clock, in seconds since 1970. */
  dateSeconds: number;
  dateNanoseconds: number;
  /** The guest's clock, in nanoseconds. */
  vmClock: bigint;
  /** 0 for a snapshot of the disk alone. */
  vmStateSize: number;
  /** Size of the virtual disk at that time. */
  diskSize: number;
  l1Offset: number;
  l1Entries: number;
}

const failAt =
  (place: Place) =>
  (message: string, at = 0, code: MigrationError['code'] = 'bad-disk-image') =>
    new MigrationError(code, message, { ...place, offset: place.offset + at });

type Fail = ReturnType<typeof failAt>;

/** A 64-bit size or offset as a number. */
function readSize(view: DataView, at: number, what: string, fail: Fail): number {
  const value = view.getBigUint64(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw fail(`expected ${what} below 2^53, got ${value}`, at, 'limit-exceeded');
  }
  return Number(value);
}

/**
 * Decodes a header from the first {@link qcow2HeaderLength} bytes of an image, or fewer if the image is shorter.
 * @throws MigrationError `bad-disk-image` for a violation of the format, `unsupported` for a version other than 2 and
 *   3.
 */
export function decodeQcow2Header(bytes: Uint8Array, place: Place): Qcow2Header {
  const fail = failAt(place);
  if (bytes.length < headerLengthV2) throw fail(`expected ${headerLengthV2} bytes of qcow2 header`, 0, 'truncated');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0) !== qcow2Magic) throw fail('expected the magic of a qcow2 image');
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw fail(`expected qcow2 version 2 or 3, got ${version}`, 4, 'unsupported');
  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21) throw fail(`expected 9 to 21 cluster bits, got ${clusterBits}`, 20);
  const crypt = view.getUint32(32);
  const snapshotCount = view.getUint32(60);
  if (snapshotCount > maxSnapshots) {
    throw fail(`expected at most ${maxSnapshots} snapshots, got ${snapshotCount}`, 60, 'limit-exceeded');
  }
  const snapshotsOffset = readSize(view, 64, 'a snapshot table offset', fail);
  if (snapshotCount > 0 && (snapshotsOffset === 0 || snapshotsOffset % 2 ** clusterBits !== 0)) {
    throw fail(`expected a snapshot table at a cluster's start, got offset ${snapshotsOffset}`, 64);
  }
  const { features, compression } =
    version === 2 ? { features: 0n, compression: 'deflate' as const } : decodeFeatures(view, fail);
  return {
    version,
    clusterBits,
    diskSize: readSize(view, 24, 'a disk size', fail),
    hasBackingFile: view.getBigUint64(8) !== 0n,
    encryption: encryptions[crypt] ?? `method ${crypt}`,
    isDirty: (features & Incompatible.dirty) !== 0n,
    isCorrupt: (features & Incompatible.corrupt) !== 0n,
    hasExternalData: (features & Incompatible.externalData) !== 0n,
    hasExtendedL2: (features & Incompatible.extendedL2) !== 0n,
    compression,
    unknownFeatures: features & ~knownIncompatible,
    snapshotCount,
    snapshotsOffset,
  };
}

/** Decodes the additions of version 3. */
function decodeFeatures(view: DataView, fail: Fail): { features: bigint; compression: 'deflate' | 'zstd' } {
  if (view.byteLength < headerLengthV3) throw fail(`expected ${headerLengthV3} bytes of qcow2 header`, 0, 'truncated');
  const features = view.getBigUint64(72);
  const length = view.getUint32(100);
  if (length < headerLengthV3 || length % 8 !== 0) {
    throw fail(`expected a header length from ${headerLengthV3} on, in steps of 8, got ${length}`, 100);
  }
  const type = length > headerLengthV3 && view.byteLength > headerLengthV3 ? view.getUint8(104) : 0;
  if (type > 1) throw fail(`expected compression type 0 or 1, got ${type}`, 104, 'unsupported');
  if ((type !== 0) !== ((features & Incompatible.compressionType) !== 0n)) {
    throw fail(`expected the feature bit of compression types to fit type ${type}`, 72);
  }
  return { features, compression: type === 0 ? 'deflate' : 'zstd' };
}

/** The fixed part of an entry of the snapshot table. */
export const snapshotHeadLength = 40;
/** The most extra data of an entry. QEMU writes 24 bytes, and refuses more than this. */
const maxExtraLength = 1024;

/**
 * The length of an entry, from its fixed part. The next one begins at a multiple of 8.
 * @throws MigrationError `limit-exceeded` for more extra data than QEMU accepts.
 */
export function snapshotEntryLength(head: Uint8Array, place: Place): number {
  const view = new DataView(head.buffer, head.byteOffset, snapshotHeadLength);
  const extra = view.getUint32(36);
  if (extra > maxExtraLength) {
    throw failAt(place)(`expected at most ${maxExtraLength} bytes of extra data, got ${extra}`, 36, 'limit-exceeded');
  }
  return snapshotHeadLength + extra + view.getUint16(12) + view.getUint16(14);
}

/** Decodes a whole entry of the snapshot table. @throws MigrationError for an impossible L1 table. */
export function decodeSnapshot(entry: Uint8Array, header: Qcow2Header, place: Place): Qcow2Snapshot {
  const fail = failAt(place);
  const view = new DataView(entry.buffer, entry.byteOffset, entry.length);
  const extra = view.getUint32(36);
  const idAt = snapshotHeadLength + extra;
  const nameAt = idAt + view.getUint16(12);
  const text = (from: number, to: number) => new TextDecoder().decode(entry.subarray(from, to));
  const l1Offset = readSize(view, 0, 'an L1 table offset', fail);
  const l1Entries = view.getUint32(8);
  if (l1Offset % 2 ** header.clusterBits !== 0)
    throw fail(`expected an L1 table at a cluster's start, got ${l1Offset}`);
  if (l1Entries > maxL1Bytes / 8) {
    throw fail(`expected at most ${maxL1Bytes / 8} L1 entries, got ${l1Entries}`, 8, 'limit-exceeded');
  }
  return {
    id: text(idAt, nameAt),
    name: text(nameAt, nameAt + view.getUint16(14)),
    dateSeconds: view.getUint32(16),
    dateNanoseconds: view.getUint32(20),
    vmClock: view.getBigUint64(24),
    vmStateSize: extra >= 8 ? readSize(view, 40, 'a VM state size', fail) : view.getUint32(32),
    diskSize: extra >= 16 ? readSize(view, 48, 'a disk size', fail) : header.diskSize,
    l1Offset,
    l1Entries,
  };
}

/** How the tables of an image divide it. */
export interface Qcow2Geometry {
  clusterSize: number;
  /** Clusters that one L2 table maps. */
  tableClusters: number;
  /** Bytes of an L2 entry: 16 with subclusters. */
  entryLength: 8 | 16;
}

export function geometryOf({ clusterBits, hasExtendedL2 }: Qcow2Header): Qcow2Geometry {
  const clusterSize = 2 ** clusterBits;
  const entryLength = hasExtendedL2 ? 16 : 8;
  return { clusterSize, tableClusters: clusterSize / entryLength, entryLength };
}

/** Where the VM state begins: after the disk, at the first byte that its own L1 entry maps. */
export function vmStateOffset(diskSize: number, { clusterSize, tableClusters }: Qcow2Geometry): number {
  const reach = clusterSize * tableClusters;
  return Math.ceil(diskSize / reach) * reach;
}

const offsetMask = 0x00fffffffffffe00n;
const l1Reserved = 0x7f000000000001ffn;
const l2Reserved = 0x3f000000000001fen;
const compressedFlag = 1n << 62n;
const copiedFlag = 1n << 63n;

/**
 * The offset of the L2 table in an L1 entry; 0 = none. @throws MigrationError `bad-disk-image` for an impossible entry.
 */
export function decodeL1Entry(entry: bigint, { clusterSize }: Qcow2Geometry, place: Place): number {
  const offset = Number(entry & offsetMask);
  if ((entry & l1Reserved) !== 0n || offset % clusterSize !== 0) {
    throw failAt(place)(`expected an L1 entry, got 0x${entry.toString(16)}`);
  }
  return offset;
}

/** Where the bytes of a cluster, or of a subcluster, are. */
export type ClusterPlace =
  | { kind: 'zero' }
  | { kind: 'data'; offset: number }
  /** At most `length` bytes. Bytes after the compressed data do not belong to it. */
  | { kind: 'compressed'; offset: number; length: number };

const zero: ClusterPlace = { kind: 'zero' };

/**
 * The place of a cluster, from its L2 entry. With an extended entry, `bitmap` is its bitmap, and `subcluster` selects
 * one of the cluster's 32 subclusters. Unallocated clusters read as zeros.
 * @throws MigrationError `bad-disk-image` for an entry that the format forbids.
 */
export function decodeL2Entry(
  entry: bigint,
  header: Qcow2Header,
  place: Place,
  bitmap?: bigint,
  subcluster = 0,
): ClusterPlace {
  const bad = () => failAt(place)(`expected an L2 entry, got 0x${entry.toString(16)}`);
  const { clusterBits } = header;
  if ((entry & compressedFlag) !== 0n) {
    if ((entry & copiedFlag) !== 0n || (bitmap !== undefined && bitmap !== 0n)) throw bad();
    const offsetBits = BigInt(62 - (clusterBits - 8));
    const offset = Number(entry & ((1n << offsetBits) - 1n));
    const sectors = Number((entry & (compressedFlag - 1n)) >> offsetBits) + 1;
    if (offset === 0) throw bad();
    return { kind: 'compressed', offset, length: sectors * 512 - (offset % 512) };
  }
  const offset = Number(entry & offsetMask);
  if ((entry & l2Reserved) !== 0n || offset % 2 ** clusterBits !== 0) throw bad();
  if (bitmap !== undefined) {
    const isAllocated = ((bitmap >> BigInt(subcluster)) & 1n) === 1n;
    const isZero = ((bitmap >> BigInt(subcluster + 32)) & 1n) === 1n;
    if ((entry & 1n) !== 0n || (isAllocated && (isZero || offset === 0))) throw bad();
    return isAllocated ? { kind: 'data', offset } : zero;
  }
  if ((entry & 1n) !== 0n) {
    if (header.version === 2) throw bad();
    return zero;
  }
  return offset === 0 ? zero : { kind: 'data', offset };
}
