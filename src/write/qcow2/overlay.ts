/**
 * A new qcow2 image over another disk, its backing file: it has no data of its own (docs/formats/qcow2.md). Clusters of
 * 64 KiB:
 *
 *     0  header, backing format, backing file     2  refcounts of 16 bits
 *     1  refcount table                           3  L1 table, all zero: every cluster is in the backing file
 */
import type { ByteStore } from '../../io/byte-source.ts';
import { qcow2Magic } from '../../read/container/qcow2-header.ts';

const clusterBits = 16;
const clusterSize = 2 ** clusterBits;
const headerLength = 112;
const backingFormatExtension = 0xe2792aca;
/** Bytes of the disk that an entry of the L1 table stands for. */
const l1Span = (clusterSize / 8) * clusterSize;
/** The longest name of a backing file. */
const maxNameBytes = 1023;

/** The disk under an overlay. */
export interface Backing {
  /** An absolute path, or one beside the overlay. */
  path: string;
  format: 'raw' | 'qcow2';
  /** Bytes of the disk. */
  diskSize: number;
}

/** Writes an overlay. @throws RangeError for a name that is too long for an image */
export async function writeOverlay(store: ByteStore, { path, format, diskSize }: Backing): Promise<void> {
  const encoder = new TextEncoder();
  const name = encoder.encode(path);
  if (name.length > maxNameBytes) {
    throw new RangeError(`expected the name of a backing file of at most ${maxNameBytes} bytes, got ${name.length}`);
  }
  const l1Entries = Math.ceil(diskSize / l1Span);
  const l1Clusters = Math.max(1, Math.ceil((8 * l1Entries) / clusterSize));
  const head = new Uint8Array(3 * clusterSize);
  const view = new DataView(head.buffer);
  const formatName = encoder.encode(format);
  const nameOffset = headerLength + 8 + Math.ceil(formatName.length / 8) * 8 + 8;
  view.setUint32(0, qcow2Magic);
  view.setUint32(4, 3);
  view.setBigUint64(8, BigInt(nameOffset));
  view.setUint32(16, name.length);
  view.setUint32(20, clusterBits);
  view.setBigUint64(24, BigInt(Math.ceil(diskSize / 512) * 512));
  view.setUint32(36, l1Entries);
  view.setBigUint64(40, BigInt(3 * clusterSize));
  view.setBigUint64(48, BigInt(clusterSize));
  view.setUint32(56, 1);
  view.setUint32(96, 4);
  view.setUint32(100, headerLength);
  view.setUint32(headerLength, backingFormatExtension);
  view.setUint32(headerLength + 4, formatName.length);
  head.set(formatName, headerLength + 8);
  head.set(name, nameOffset);
  view.setBigUint64(clusterSize, BigInt(2 * clusterSize));
  for (let cluster = 0; cluster < 3 + l1Clusters; cluster++) view.setUint16(2 * clusterSize + 2 * cluster, 1);
  await store.write(head, 0);
  await store.truncate((3 + l1Clusters) * clusterSize);
}
