/**
 * The L1 and L2 tables of a qcow2 image as references: each use of a cluster by the active tables, or by a snapshot's,
 * counts once in its refcount (docs/formats/qcow2.md, "Refcounts"). The tables are walked a cluster at a time.
 *
 *     L1 entry   bit 63 copied | bits 9 to 55 offset of an L2 table
 *     L2 entry   bit 63 copied | bit 62 compressed | bits 9 to 55 offset of a cluster, or where the compressed data is
 *
 * "Copied" means that the refcount of what the entry points to is 1, so that it may be overwritten in place. It counts
 * in the active tables only.
 */
import { type ByteStore, placeIn, readFully } from '../../io/byte-source.ts';
import { decodeL1Entry, type Qcow2Geometry, type Qcow2Header } from '../../read/container/qcow2-header.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { Refcounts } from './refcounts.ts';

const copied = 0x8000_0000;
const compressed = 0x4000_0000;
const highOffset = 0x00ff_ffff;
const lowOffset = 0xffff_fe00;
/** The largest L1 table in bytes, like QEMU's limit. */
const maxL1Bytes = 32 << 20;

/** An image whose tables are walked. */
export interface TableContext {
  readonly store: ByteStore;
  readonly header: Qcow2Header;
  readonly geometry: Qcow2Geometry;
  readonly refcounts: Refcounts;
}

/** The offset of the L2 table of each entry of an L1 table; 0 = none. */
export async function readL1({ store, geometry }: TableContext, offset: number, entries: number): Promise<number[]> {
  if (8 * entries > maxL1Bytes) {
    const message = `expected at most ${maxL1Bytes / 8} L1 entries, got ${entries}`;
    throw new MigrationError('limit-exceeded', message, placeIn(store, offset));
  }
  const table = new DataView(new ArrayBuffer(8 * entries));
  await readFully(store, new Uint8Array(table.buffer), offset);
  return Array.from({ length: entries }, (_, i) =>
    decodeL1Entry(table.getBigUint64(8 * i), geometry, placeIn(store, offset + 8 * i)),
  );
}

/** Adds `count` to the refcounts of everything that these L1 entries lead to. */
export async function addReferences(context: TableContext, l1: readonly number[], count: 1 | -1): Promise<void> {
  const { geometry, header, refcounts } = context;
  const { clusterSize } = geometry;
  for (const offset of l1) {
    if (offset === 0) continue;
    const table = await readL2(context, offset);
    for (let at = 0; at < clusterSize; at += geometry.entryLength) {
      const high = table.getUint32(at);
      const low = table.getUint32(at + 4);
      if (high === 0 && low === 0) continue;
      if ((high & compressed) !== 0) {
        const data = compressedRange(high, low, header.clusterBits);
        refcounts.addRange(data.offset, data.bytes, count);
        continue;
      }
      const cluster = clusterOffset(high, low);
      if (cluster !== 0) refcounts.add(cluster / clusterSize, count);
    }
    refcounts.add(offset / clusterSize, count);
  }
}

/**
 * Makes the "copied" flags of the active L2 tables fit the refcounts. A table that changes gets a new place. `l1` has
 * the active entries, and receives the new places. `sharers` is by how many L1 tables each is used that will have the
 * new place: with the snapshot that is being made, 2. Returns the L1 table with its own flags.
 */
export async function settleCopied(context: TableContext, l1: number[], sharers: 1 | 2): Promise<Uint8Array> {
  const { store, geometry, refcounts } = context;
  const { clusterSize } = geometry;
  const entries = new DataView(new ArrayBuffer(8 * l1.length));
  for (const [i, offset] of l1.entries()) {
    if (offset === 0) continue;
    const table = await readL2(context, offset);
    if (setCopied(table, context)) {
      const place = refcounts.allocate();
      if (sharers === 2) refcounts.add(place / clusterSize, 1);
      refcounts.add(offset / clusterSize, -sharers);
      await store.write(new Uint8Array(table.buffer), place);
      l1[i] = place;
    }
    const own = l1[i] as number;
    const flag = refcounts.get(own / clusterSize) === 1 ? 1n << 63n : 0n;
    entries.setBigUint64(8 * i, BigInt(own) | flag);
  }
  return new Uint8Array(entries.buffer);
}

/** Sets the flags of an L2 table. Returns whether one changed. */
function setCopied(table: DataView, { geometry, refcounts }: TableContext): boolean {
  const { clusterSize, entryLength } = geometry;
  let hasChanged = false;
  for (let at = 0; at < clusterSize; at += entryLength) {
    const high = table.getUint32(at);
    if ((high & compressed) !== 0) continue;
    const cluster = clusterOffset(high, table.getUint32(at + 4));
    const flag = cluster !== 0 && refcounts.get(cluster / clusterSize) === 1;
    if (flag === ((high & copied) !== 0)) continue;
    table.setUint32(at, flag ? high | copied : high & ~copied);
    hasChanged = true;
  }
  return hasChanged;
}

async function readL2({ store, geometry }: TableContext, offset: number): Promise<DataView> {
  const table = new DataView(new ArrayBuffer(geometry.clusterSize));
  await readFully(store, new Uint8Array(table.buffer), offset);
  return table;
}

function clusterOffset(high: number, low: number): number {
  return (high & highOffset) * 2 ** 32 + ((low & lowOffset) >>> 0);
}

/** Where the data of a compressed cluster are: from the offset to the end of its last sector. */
function compressedRange(high: number, low: number, clusterBits: number): { offset: number; bytes: number } {
  const entry = (BigInt(high) << 32n) | BigInt(low);
  const offsetBits = BigInt(70 - clusterBits);
  const offset = Number(entry & ((1n << offsetBits) - 1n));
  const sectors = Number((entry & ((1n << 62n) - 1n)) >> offsetBits) + 1;
  return { offset, bytes: sectors * 512 - (offset % 512) };
}

/** Encodes L2 tables for clusters at these offsets, one after the other. */
export function encodeL2Tables(
  offsets: readonly number[],
  { clusterSize, tableClusters, entryLength }: Qcow2Geometry,
): Uint8Array[] {
  const tables: Uint8Array[] = [];
  for (let first = 0; first < offsets.length; first += tableClusters) {
    const table = new DataView(new ArrayBuffer(clusterSize));
    for (const [i, offset] of offsets.slice(first, first + tableClusters).entries()) {
      table.setBigUint64(i * entryLength, BigInt(offset) | (1n << 63n));
      // All of its subclusters are allocated.
      if (entryLength === 16) table.setBigUint64(i * entryLength + 8, 0xffff_ffffn);
    }
    tables.push(new Uint8Array(table.buffer));
  }
  return tables;
}
