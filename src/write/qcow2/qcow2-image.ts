/**
 * A qcow2 image whose internal snapshots are saved, loaded and deleted (docs/formats/qcow2.md). The disk is not in use.
 *
 * An image that is killed at any moment is whole, before the change or after it, and has no leaks:
 *
 *     1. new tables, refcount blocks and data go to clusters that are free in the file, and nothing else is written
 *     2. sync
 *     3. one write to the header replaces the active L1 table, the refcount table and the snapshot table     (a sector)
 *     4. sync
 *
 * The refcounts that come into force with step 3 count the old tables as free.
 */
import { BlockCache } from '../../io/block-cache.ts';
import { type ByteSink, type ByteSource, type ByteStore, placeIn, readFully } from '../../io/byte-source.ts';
import {
  decodeQcow2Header,
  geometryOf,
  type Qcow2Header,
  type Qcow2Snapshot,
  qcow2HeaderLength,
} from '../../read/container/qcow2-header.ts';
import { readQcow2, readSnapshotTable, requireReadable, vmStateOf } from '../../read/container/qcow2-snapshots.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import {
  type BitmapDirectory,
  type BitmapEntry,
  decodeBitmapTable,
  decodeDirectory,
  decodeHeaderArea,
  directoryIn,
  encodeBitmapTable,
  encodeDirectory,
  encodeHeaderArea,
} from './bitmap-directory.ts';
import { addReferences, encodeL2Tables, readL1, settleCopied, type TableContext } from './cluster-tables.ts';
import { Refcounts } from './refcounts.ts';
import { encodeSnapshot, joinSnapshots, nextSnapshotId } from './snapshot-table.ts';
import {
  autoclearBitmaps,
  compatibleLazyRefcounts,
  decodeTableFields,
  encodeTableFields,
  fieldsHeadLength,
  fieldsOffset,
  type TableFields,
} from './table-fields.ts';
import { VmStateWriter } from './vm-state-writer.ts';

/** What is said about a snapshot that is made. */
export interface NewSnapshot {
  name: string;
  /** By the host's clock, since 1970. */
  dateSeconds: number;
  dateNanoseconds: number;
  /** The guest's clock, in nanoseconds. */
  vmClock: bigint;
}

/** A dirty bitmap of an image. Without `bits` that stands in the image under its name is left as it is. */
export interface KeptBitmap {
  readonly name: string;
  /** Bytes of the disk for each bit. */
  readonly granularity: number;
  /** It records when the image is opened. */
  readonly isAuto: boolean;
  /** Whoever opened the image has not closed it. */
  readonly isInUse: boolean;
  readonly bits?: Uint8Array | undefined;
}

/** Writes a VM state, from its first byte to its last. */
export type WriteVmState = (sink: ByteSink) => Promise<void>;

/** An image as it is in the file, and as it will be. */
interface Change extends TableContext {
  head: Uint8Array;
  fields: TableFields;
  /** Bytes of the snapshot table in the file. */
  snapshotBytes: number;
  entries: { bytes: Uint8Array; snapshot: Qcow2Snapshot }[];
}

/** A qcow2 image that can be changed. */
export class WritableQcow2 {
  readonly #store: ByteStore;
  /** The entries of the bitmap directory. */
  #bitmaps: readonly BitmapEntry[] = [];
  /** Bits of a refcount: a power of two from 1 to 64. */
  readonly refcountBits: number;
  /** Whether QEMU may delay refcounts while it has the image open. */
  readonly hasLazyRefcounts: boolean;
  #header: Qcow2Header;
  #snapshots: readonly Qcow2Snapshot[];

  private constructor(
    store: ByteStore,
    { header, snapshots }: { header: Qcow2Header; snapshots: readonly Qcow2Snapshot[] },
    { refcountBits, compatible }: TableFields,
  ) {
    this.#store = store;
    this.refcountBits = refcountBits;
    this.hasLazyRefcounts = (compatible & compatibleLazyRefcounts) !== 0n;
    this.#header = header;
    this.#snapshots = snapshots;
  }

  /**
   * Opens an image of version 2 or 3.
   * @throws MigrationError `unsupported` for encryption, external data files and unknown features; `unclean-image` for
   *   an image that is marked as dirty or corrupt; `bad-disk-image` for a violation of the format.
   */
  static async open(store: ByteStore): Promise<WritableQcow2> {
    const { header, snapshots } = await readQcow2(store, new BlockCache(store));
    requireReadable(store, header);
    if (header.isCorrupt || header.isDirty) {
      const why = header.isCorrupt
        ? 'the image is marked corrupt; it cannot be written'
        : 'the image is marked dirty: it was not closed';
      const message = `${why} (qemu-img check -r all repairs it)`;
      throw new MigrationError('unclean-image', message, placeIn(store, 72));
    }
    const head = new Uint8Array(fieldsHeadLength(header.version));
    await readFully(store, head, 0);
    const fields = decodeTableFields(head, placeIn(store, 0));
    const image = new WritableQcow2(store, { header, snapshots }, fields);
    if ((fields.autoclear & autoclearBitmaps) !== 0n) image.#bitmaps = (await image.#directory()).entries;
    return image;
  }

  /** Whether it keeps dirty bitmaps of its disk. */
  get hasBitmaps(): boolean {
    return this.#bitmaps.length > 0;
  }

  /** Its header, as it is now. */
  get header(): Qcow2Header {
    return this.#header;
  }

  /** Its snapshots, oldest first. */
  get snapshots(): readonly Qcow2Snapshot[] {
    return this.#snapshots;
  }

  /** The first snapshot with that name. */
  find(name: string): Qcow2Snapshot | undefined {
    return this.#snapshots.find((each) => each.name === name);
  }

  /** The VM state of a snapshot; undefined if it has none. */
  vmState(snapshot: Qcow2Snapshot): ByteSource | undefined {
    if (snapshot.vmStateSize === 0) return undefined;
    return vmStateOf(this.#store, snapshot.name, this.#header, snapshot);
  }

  /**
   * Makes a snapshot of the disk, with a VM state if `writeState` is given. If that fails, the image is as before.
   * @throws MigrationError `unsupported` if the image's refcounts have 1 bit, or there is no place for more snapshots.
   */
  async save(made: NewSnapshot, writeState?: WriteVmState): Promise<Qcow2Snapshot> {
    const change = await this.#begin();
    const { size } = this.#store;
    try {
      return await this.#save(change, made, writeState);
    } catch (error) {
      // Where there is no space left, the unfinished state should not remain.
      if (this.#store.size > size) await this.#store.truncate(size);
      throw error;
    }
  }

  async #save(change: Change, made: NewSnapshot, writeState: WriteVmState | undefined): Promise<Qcow2Snapshot> {
    const { fields, refcounts, geometry, entries } = change;
    const { clusterSize } = geometry;
    const active = await readL1(change, fields.l1Offset, fields.l1Entries);
    const diskEntries = this.#l1Entries(change, fields.diskSize);
    const disk = resized(active, diskEntries);
    // A state that QEMU left there when it loaded a snapshot.
    await addReferences(change, active.slice(diskEntries), -1);
    await addReferences(change, disk, 1);
    const l1 = await settleCopied(change, disk, 2);
    const state = new VmStateWriter(this.#store, refcounts, clusterSize);
    await writeState?.(state);
    const tables = encodeL2Tables(await state.finish(), geometry);
    const own = [...disk];
    for (const table of tables) own.push(await this.#put(change, table));
    const ownTable = new DataView(new ArrayBuffer(8 * own.length));
    for (const [i, offset] of own.entries()) ownTable.setBigUint64(8 * i, BigInt(offset));
    const snapshot: Qcow2Snapshot = {
      ...{ ...made, id: nextSnapshotId(entries.map((each) => each.snapshot)) },
      ...{ vmStateSize: state.size, diskSize: fields.diskSize },
      ...{ l1Offset: await this.#put(change, new Uint8Array(ownTable.buffer)), l1Entries: own.length },
    };
    entries.push({ bytes: encodeSnapshot(snapshot), snapshot });
    await this.#commit(change, l1);
    return snapshot;
  }

  /**
   * Makes the disk what it was at the time of a snapshot. The snapshot remains.
   * @throws MigrationError `unsupported` if the image keeps dirty bitmaps: they would not know of the change
   */
  async load({ l1Offset, l1Entries, diskSize }: Qcow2Snapshot): Promise<void> {
    if (this.hasBitmaps) {
      throw new MigrationError('unsupported', 'Device has active dirty bitmaps', placeIn(this.#store, fieldsOffset));
    }
    const change = await this.#begin();
    const { fields } = change;
    const active = await readL1(change, fields.l1Offset, fields.l1Entries);
    const wanted = resized(await readL1(change, l1Offset, l1Entries), this.#l1Entries(change, diskSize));
    await addReferences(change, wanted, 1);
    await addReferences(change, active, -1);
    fields.diskSize = diskSize;
    await this.#commit(change, await settleCopied(change, wanted, 1));
  }

  /** Deletes a snapshot and frees what only it used. */
  async delete(snapshot: Qcow2Snapshot): Promise<void> {
    const change = await this.#begin();
    const { fields, refcounts, entries } = change;
    const index = entries.findIndex((each) => each.snapshot.id === snapshot.id && each.snapshot.name === snapshot.name);
    if (index < 0) throw new RangeError(`expected a snapshot of ${this.#store.name}, got "${snapshot.name}"`);
    const [{ snapshot: gone }] = entries.splice(index, 1) as [Change['entries'][number]];
    await addReferences(change, await readL1(change, gone.l1Offset, gone.l1Entries), -1);
    refcounts.addRange(gone.l1Offset, 8 * gone.l1Entries, -1);
    const active = await readL1(change, fields.l1Offset, fields.l1Entries);
    await this.#commit(change, await settleCopied(change, active, 1));
  }

  /** Its dirty bitmaps, with their bits unless they are in use. */
  async bitmaps(): Promise<KeptBitmap[]> {
    const kept: KeptBitmap[] = [];
    for (const entry of this.#bitmaps) {
      const { name, isAuto, isInUse, granularityBits } = entry;
      const bits = isInUse ? undefined : await this.#bitsOf(entry);
      kept.push({ name, granularity: 2 ** granularityBits, isAuto, isInUse, bits });
    }
    return kept;
  }

  async #bitsOf({ granularityBits, tableOffset, tableEntries, name }: BitmapEntry): Promise<Uint8Array> {
    const clusterSize = 2 ** this.#header.clusterBits;
    const bits = new Uint8Array(Math.ceil(Math.ceil(this.#header.diskSize / 2 ** granularityBits) / 8));
    if (tableEntries !== Math.ceil(bits.length / clusterSize)) {
      const message = `expected ${Math.ceil(bits.length / clusterSize)} clusters of the bitmap ${name}, got ${tableEntries}`;
      throw new MigrationError('bad-disk-image', message, placeIn(this.#store, tableOffset));
    }
    for (const [i, offset] of (await this.#clustersOf({ tableOffset, tableEntries })).entries()) {
      const part = bits.subarray(i * clusterSize, (i + 1) * clusterSize);
      if (offset === 1) part.fill(0xff);
      else if (offset !== 0) await readFully(this.#store, part, offset);
    }
    return bits;
  }

  async #clustersOf({
    tableOffset,
    tableEntries,
  }: Pick<BitmapEntry, 'tableOffset' | 'tableEntries'>): Promise<number[]> {
    const table = new Uint8Array(8 * tableEntries);
    await readFully(this.#store, table, tableOffset);
    return decodeBitmapTable(table);
  }

  /** The area behind the header, and the bitmaps that it leads to. */
  async #directory() {
    const place = placeIn(this.#store, 0);
    const bytes = new Uint8Array(Math.min(2 ** this.#header.clusterBits, this.#store.size));
    await readFully(this.#store, bytes, 0);
    const area = decodeHeaderArea(bytes, place);
    const directory = directoryIn(area, place);
    const entries = new Uint8Array(directory?.bytes ?? 0);
    if (directory !== undefined) await readFully(this.#store, entries, directory.offset);
    return { bytes, area, directory, entries: decodeDirectory(entries, placeIn(this.#store, directory?.offset ?? 0)) };
  }

  /** Marks all bitmaps as in use, in place: until they are kept again, nobody may trust them. */
  async useBitmaps(): Promise<void> {
    if (this.#bitmaps.every(({ isInUse }) => isInUse)) return;
    const { directory, entries } = await this.#directory();
    this.#bitmaps = entries.map((entry) => ({ ...entry, isInUse: true }));
    await this.#store.write(encodeDirectory(this.#bitmaps), (directory as BitmapDirectory).offset);
    await this.#store.sync();
  }

  /**
   * Replaces all bitmaps. While that happens, the image says that it has none: if it is killed then, it has leaks, and is
   * whole.
   * @throws MigrationError `unsupported` if the header has no space for the extension
   */
  async keepBitmaps(bitmaps: readonly KeptBitmap[]): Promise<void> {
    if (bitmaps.length === 0 && this.#bitmaps.length === 0) return;
    const change = await this.#begin();
    const { fields, refcounts } = change;
    const { bytes, area, directory } = await this.#directory();
    const entries: BitmapEntry[] = [];
    for (const bitmap of bitmaps) entries.push(await this.#keepBitmap(change, bitmap));
    for (const gone of this.#bitmaps.filter(({ tableOffset }) =>
      entries.every((each) => each.tableOffset !== tableOffset),
    )) {
      for (const offset of await this.#clustersOf(gone)) if (offset > 1) refcounts.addRange(offset, 1, -1);
      refcounts.addRange(gone.tableOffset, 8 * gone.tableEntries, -1);
    }
    if (this.#bitmaps.length > 0 && directory !== undefined) refcounts.addRange(directory.offset, directory.bytes, -1);
    const encoded = encodeDirectory(entries);
    const place = { count: entries.length, offset: await this.#put(change, encoded), bytes: encoded.length };
    const head = encodeHeaderArea(bytes, area, entries.length === 0 ? undefined : place, placeIn(this.#store, 0));
    fields.autoclear &= ~autoclearBitmaps;
    head.set(encodeTableFields(change.head, fields), fieldsOffset);
    await this.#store.sync();
    await this.#store.write(head, 0);
    await this.#store.sync();
    if (entries.length > 0) fields.autoclear |= autoclearBitmaps;
    await this.#bringIntoForce(change);
    this.#bitmaps = entries;
  }

  async #keepBitmap(change: Change, { name, granularity, isAuto, isInUse, bits }: KeptBitmap): Promise<BitmapEntry> {
    const granularityBits = Math.log2(granularity);
    const own = { name, granularityBits, isAuto, isInUse };
    if (bits === undefined) {
      const entry = this.#bitmaps.find((each) => each.name === name);
      if (entry === undefined) throw new RangeError(`expected the bits of ${name}, which the image does not have`);
      return { ...entry, ...own };
    }
    const { clusterSize } = change.geometry;
    const clusters: number[] = [];
    for (let at = 0; at < bits.length; at += clusterSize) {
      const part = bits.subarray(at, at + clusterSize);
      clusters.push(part.every((byte) => byte === 0) ? 0 : await this.#put(change, part));
    }
    const tableOffset = await this.#put(change, encodeBitmapTable(clusters));
    return { ...own, tableOffset, tableEntries: clusters.length };
  }

  /** Reads what the file has now. */
  async #begin(): Promise<Change> {
    const store = this.#store;
    const bytes = new Uint8Array(Math.min(qcow2HeaderLength, store.size));
    await readFully(store, bytes, 0);
    const header = decodeQcow2Header(bytes, placeIn(store, 0));
    const head = bytes.slice(0, fieldsHeadLength(header.version));
    const fields = decodeTableFields(head, placeIn(store, 0));
    const geometry = geometryOf(header);
    const entries = await readSnapshotTable(store, new BlockCache(store), header);
    const refcounts = await Refcounts.read(store, fields, geometry.clusterSize);
    const snapshotBytes = joinSnapshots(entries.map(({ bytes: entry }) => entry)).length;
    return { store, header, geometry, head, fields, entries, refcounts, snapshotBytes };
  }

  /** L1 entries that map a disk. */
  #l1Entries({ geometry: { clusterSize, tableClusters } }: Change, diskSize: number): number {
    return Math.ceil(diskSize / (clusterSize * tableClusters));
  }

  /** Writes a table to free clusters. Returns its offset. */
  async #put({ refcounts, geometry: { clusterSize } }: Change, table: Uint8Array): Promise<number> {
    if (table.length === 0) return 0;
    const clusters = Math.ceil(table.length / clusterSize);
    const offset = refcounts.allocate(clusters);
    const padded = new Uint8Array(clusters * clusterSize);
    padded.set(table);
    await this.#store.write(padded, offset);
    return offset;
  }

  /** Replaces the active L1 table and the snapshot table, and brings the refcounts into force. */
  async #commit(change: Change, l1: Uint8Array): Promise<void> {
    const { head, fields, refcounts, entries } = change;
    const old = decodeTableFields(head, placeIn(this.#store, 0));
    refcounts.addRange(old.l1Offset, 8 * old.l1Entries, -1);
    refcounts.addRange(old.snapshotsOffset, change.snapshotBytes, -1);
    const snapshots = joinSnapshots(entries.map(({ bytes }) => bytes));
    fields.l1Offset = await this.#put(change, l1);
    fields.l1Entries = l1.length / 8;
    fields.snapshotsOffset = await this.#put(change, snapshots);
    fields.snapshotCount = entries.length;
    await this.#bringIntoForce(change);
    const { header, snapshots: listed } = await readQcow2(this.#store, new BlockCache(this.#store));
    this.#header = header;
    this.#snapshots = listed;
  }

  /** Writes the refcounts, and then the fields that lead to everything new. */
  async #bringIntoForce({ head, fields, refcounts }: Change): Promise<void> {
    fields.autoclear &= autoclearBitmaps;
    Object.assign(fields, await refcounts.write(decodeTableFields(head, placeIn(this.#store, 0))));
    await this.#store.sync();
    await this.#store.write(encodeTableFields(head, fields), fieldsOffset);
    await this.#store.sync();
  }
}

/** An L1 table with that many entries. */
function resized(l1: readonly number[], entries: number): number[] {
  return Array.from({ length: entries }, (_, i) => l1[i] ?? 0);
}
