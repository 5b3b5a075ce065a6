/**
 * The VM state of a qcow2 snapshot as a source whose byte 0 is the first byte of the state (docs/formats/qcow2.md). It
 * has random access. It reads zero, compressed and extended (subcluster) entries, and consecutive clusters together.
 */

import { BlockCache } from '../../io/block-cache.ts';
import { type ByteSource, placeIn, readFully } from '../../io/byte-source.ts';
import { MigrationError, type Place } from '../../vm/migration-error.ts';
import {
  type ClusterPlace,
  decodeL1Entry,
  decodeL2Entry,
  geometryOf,
  type Qcow2Geometry,
  type Qcow2Header,
  type Qcow2Snapshot,
  vmStateOffset,
} from './qcow2-header.ts';

/** Unpacks one cluster to `length` bytes, and ignores what follows the packed data. */
export type Unpack = (packed: Uint8Array, length: number) => Promise<Uint8Array>;

/** A part of a cluster that lies in one place, in one go. */
const subclusters = 32;
/** The most bytes of the file that are announced at a time. */
const announcedBytes = 256 << 20;

export class Qcow2Source implements ByteSource {
  readonly name: string;
  readonly coordinate = 'vm-state';
  readonly size: number;
  readonly #file: ByteSource;
  readonly #tables: BlockCache;
  readonly #header: Qcow2Header;
  readonly #snapshot: Qcow2Snapshot;
  readonly #geometry: Qcow2Geometry;
  readonly #unpack: Unpack;
  /** Offset of the state in the disk. */
  readonly #start: number;
  /** Bytes that share one place: a cluster, or a subcluster. */
  readonly #unit: number;
  /** What will be read in order, in the state, and up to where it was announced to the file. */
  #order = { from: 0, to: 0 };
  /** Announces what will be read in order; undefined if the file does not care. */
  readonly willRead?: NonNullable<ByteSource['willRead']>;
  /** The cluster that was unpacked last. */
  #unpacked: { offset: number; bytes: Uint8Array } | undefined;

  /** @throws MigrationError `bad-disk-image` if the snapshot's L1 table does not cover the whole state. */
  constructor(file: ByteSource, name: string, header: Qcow2Header, snapshot: Qcow2Snapshot, unpack: Unpack) {
    this.name = name;
    this.size = snapshot.vmStateSize;
    this.#file = file;
    this.#tables = new BlockCache(file);
    this.#header = header;
    this.#snapshot = snapshot;
    this.#geometry = geometryOf(header);
    this.#unpack = unpack;
    if (file.willRead !== undefined) {
      this.willRead = (from, to) => {
        this.#order = { from, to: Math.min(to, this.size) };
      };
    }
    this.#start = vmStateOffset(snapshot.diskSize, this.#geometry);
    const { clusterSize, tableClusters } = this.#geometry;
    this.#unit = header.hasExtendedL2 ? clusterSize / subclusters : clusterSize;
    const reach = snapshot.l1Entries * tableClusters * clusterSize;
    if (this.#start + this.size > reach) {
      const message = `expected an L1 table for ${this.#start + this.size} bytes, got one for ${reach}`;
      throw new MigrationError('bad-disk-image', message, placeIn(file, snapshot.l1Offset));
    }
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const length = Math.max(0, Math.min(target.length, this.size - position));
    for (let done = 0; done < length; ) {
      const at = this.#start + position + done;
      const place = this.#peek(at) ?? (await this.#find(at));
      if (place.kind === 'data') await this.#announce(position + done, place);
      const run = await this.#runFrom(at, place, length - done);
      const bytes = target.subarray(done, done + run);
      if (place.kind === 'zero') bytes.fill(0);
      else if (place.kind === 'data')
        await readFully(this.#file, bytes, place.offset + (at % this.#geometry.clusterSize));
      else bytes.set(await this.#readUnpacked(place, at, run));
      done += run;
    }
    return length;
  }

  /** Announces the clusters from `position` on to the file, if they will be read in order: those that follow each other. */
  async #announce(position: number, place: ClusterPlace & { kind: 'data' }): Promise<void> {
    const { from, to } = this.#order;
    if (position < from || position >= to) return;
    const at = this.#start + position;
    const run = await this.#runFrom(at, place, Math.min(to - position, announcedBytes));
    const offset = place.offset + (at % this.#geometry.clusterSize);
    this.#file.willRead?.(offset, offset + run);
    this.#order.from = position + run;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /**
   * How many bytes from disk offset `at` on, at most `limit`, continue the first cluster: all zero, or consecutive in
   * the file.
   */
  async #runFrom(at: number, first: ClusterPlace, limit: number): Promise<number> {
    const unit = this.#unit;
    let run = unit - (at % unit);
    if (first.kind === 'compressed')
      return Math.min(limit, this.#geometry.clusterSize - (at % this.#geometry.clusterSize));
    const { clusterSize } = this.#geometry;
    const start = first.kind === 'data' ? first.offset + (at % clusterSize) : 0;
    while (run < limit) {
      const next = this.#peek(at + run) ?? (await this.#find(at + run));
      if (next.kind !== first.kind) break;
      if (next.kind === 'data' && next.offset + ((at + run) % clusterSize) !== start + run) break;
      run += unit;
    }
    return Math.min(run, limit);
  }

  async #readUnpacked(place: ClusterPlace & { kind: 'compressed' }, at: number, length: number): Promise<Uint8Array> {
    const { clusterSize } = this.#geometry;
    if (this.#unpacked?.offset !== place.offset) {
      const bytes = await this.#unpackCluster(place);
      this.#unpacked = { offset: place.offset, bytes };
    }
    const from = at % clusterSize;
    return this.#unpacked.bytes.subarray(from, from + length);
  }

  async #unpackCluster({ offset, length }: ClusterPlace & { kind: 'compressed' }): Promise<Uint8Array> {
    const { clusterSize } = this.#geometry;
    // The sectors of an image's last cluster may extend beyond its end.
    const packed = new Uint8Array(Math.max(0, Math.min(length, (this.#file.size ?? offset + length) - offset)));
    const bad = (message: string) => new MigrationError('bad-compression', message, placeIn(this.#file, offset));
    if (packed.length === 0) throw bad(`expected a compressed cluster, got the end of the image`);
    await readFully(this.#file, packed, offset);
    let bytes: Uint8Array;
    try {
      bytes = await this.#unpack(packed, clusterSize);
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ERR_MISSING_DECOMPRESSOR') throw error;
      throw bad(`expected a compressed cluster: ${(error as Error).message}`);
    }
    if (bytes.length !== clusterSize) throw bad(`expected a cluster of ${clusterSize} bytes, got ${bytes.length}`);
    return bytes;
  }

  /** The place of a byte of the disk, if the tables for it are in memory. */
  #peek(at: number): ClusterPlace | undefined {
    const l1 = this.#l1Position(at);
    const l1Bytes = this.#tables.peek(l1, 8);
    if (l1Bytes === undefined) return undefined;
    const table = this.#tableOf(l1Bytes, l1);
    if (table === 0) return { kind: 'zero' };
    const l2 = this.#l2Position(table, at);
    const l2Bytes = this.#tables.peek(l2, this.#geometry.entryLength);
    return l2Bytes === undefined ? undefined : this.#placeOf(l2Bytes, l2, at);
  }

  /** Like `#peek`, but reads the tables that are not in memory. */
  async #find(at: number): Promise<ClusterPlace> {
    const l1 = this.#l1Position(at);
    const table = this.#tableOf(await this.#tables.read(l1, 8), l1);
    if (table === 0) return { kind: 'zero' };
    const l2 = this.#l2Position(table, at);
    return this.#placeOf(await this.#tables.read(l2, this.#geometry.entryLength), l2, at);
  }

  #l1Position(at: number): number {
    const { clusterSize, tableClusters } = this.#geometry;
    return this.#snapshot.l1Offset + 8 * Math.floor(at / (clusterSize * tableClusters));
  }

  #l2Position(table: number, at: number): number {
    const { clusterSize, tableClusters, entryLength } = this.#geometry;
    return table + entryLength * (Math.floor(at / clusterSize) % tableClusters);
  }

  #place(position: number): Place {
    return placeIn(this.#file, position);
  }

  #tableOf(bytes: Uint8Array, position: number): number {
    return decodeL1Entry(word(bytes, 0), this.#geometry, this.#place(position));
  }

  #placeOf(bytes: Uint8Array, position: number, at: number): ClusterPlace {
    const entry = word(bytes, 0);
    const place = this.#place(position);
    if (!this.#header.hasExtendedL2) return decodeL2Entry(entry, this.#header, place);
    const subcluster = Math.floor((at % this.#geometry.clusterSize) / this.#unit);
    return decodeL2Entry(entry, this.#header, place, word(bytes, 8), subcluster);
  }
}

function word(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(at);
}
