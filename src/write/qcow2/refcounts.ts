/**
 * The refcounts of a qcow2 image (docs/formats/qcow2.md, "Refcounts"): how often each cluster is used.
 *
 *     refcount table   be64 offsets of refcount blocks, 0: all of its refcounts are 0
 *     refcount block   a cluster of refcounts, 1 to 64 bits each; below 8 bits, the lowest bits of a byte come first
 *
 * Changes stay in memory until `write`, which puts all changed blocks and the table in new places. The clusters that
 * these changes free are not given out again, so the refcounts in the file remain valid.
 */
import { type ByteStore, placeIn, readFully } from '../../io/byte-source.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { TableFields } from './table-fields.ts';

/** The most bytes of refcounts that are kept in memory. With clusters of 64 KiB and 16 bits: an image of 8 TiB. */
const maxBytes = 256 << 20;

interface Block {
  /** Where it is in the file; 0 = nowhere yet. */
  offset: number;
  bytes: Uint8Array;
  /** The bytes in the file, once the block was changed. */
  before: Uint8Array | undefined;
  /** It was put in a new place by `write`. */
  isPlaced: boolean;
}

export class Refcounts {
  readonly #store: ByteStore;
  readonly #clusterSize: number;
  readonly #bits: number;
  readonly #perBlock: number;
  readonly #blocks: (Block | undefined)[] = [];
  /** Clusters before this one are not free. */
  #next = 0;

  private constructor(store: ByteStore, clusterSize: number, bits: number) {
    this.#store = store;
    this.#clusterSize = clusterSize;
    this.#bits = bits;
    this.#perBlock = (clusterSize * 8) / bits;
  }

  /** Reads all refcounts. @throws MigrationError `limit-exceeded` if they take more than 256 MiB. */
  static async read(store: ByteStore, fields: TableFields, clusterSize: number): Promise<Refcounts> {
    const refcounts = new Refcounts(store, clusterSize, fields.refcountBits);
    const { refcountTableOffset: at, refcountTableClusters } = fields;
    const tooLarge = (bytes: number) => {
      if (bytes <= maxBytes) return;
      const message = `expected at most ${maxBytes} bytes of refcounts`;
      throw new MigrationError('limit-exceeded', message, placeIn(store, at));
    };
    tooLarge(refcountTableClusters * clusterSize);
    const table = new DataView(new ArrayBuffer(refcountTableClusters * clusterSize));
    await readFully(store, new Uint8Array(table.buffer), at);
    let total = 0;
    for (let i = 0; i < table.byteLength / 8; i++) {
      const offset = Number(table.getBigUint64(8 * i));
      if (offset === 0) continue;
      if (offset % clusterSize !== 0 || offset > store.size) {
        const message = `expected a refcount block at a cluster's start, got ${offset}`;
        throw new MigrationError('bad-disk-image', message, placeIn(store, at + 8 * i));
      }
      total += clusterSize;
      tooLarge(total);
      const bytes = new Uint8Array(clusterSize);
      await readFully(store, bytes, offset);
      refcounts.#blocks[i] = { offset, bytes, before: undefined, isPlaced: false };
    }
    return refcounts;
  }

  /** How often the cluster with that number is used. */
  get(cluster: number): number {
    const block = this.#blocks[Math.floor(cluster / this.#perBlock)];
    return block === undefined ? 0 : this.#value(block.bytes, cluster % this.#perBlock);
  }

  /**
   * Adds to the refcount of a cluster that is in use.
   * @throws MigrationError `bad-disk-image` if the image counts it as free; `unsupported` if its refcounts have too few
   *   bits.
   */
  add(cluster: number, count: number): void {
    const old = this.get(cluster);
    if (old === 0 || old + count < 0) {
      const message = `cluster ${cluster} is used more than ${old} times, its refcount: the image is damaged`;
      throw new MigrationError('bad-disk-image', message, placeIn(this.#store, cluster * this.#clusterSize));
    }
    if (old + count >= 2 ** this.#bits) {
      const message = `a refcount of ${this.#bits} ${this.#bits === 1 ? 'bit' : 'bits'} cannot count one more snapshot`;
      throw new MigrationError('unsupported', message, placeIn(this.#store, cluster * this.#clusterSize));
    }
    this.#set(cluster, old + count);
  }

  /** Takes `count` free clusters that follow each other, with refcount 1. Returns the offset of the first. */
  allocate(count = 1): number {
    let first = this.#next;
    for (let run = 0; run < count; run++) {
      if (this.#isFree(first + run)) continue;
      first += run + 1;
      run = -1;
    }
    for (let i = 0; i < count; i++) this.#set(first + i, 1);
    if (count === 1) this.#next = first + 1;
    return first * this.#clusterSize;
  }

  /** Adds to the refcounts of the clusters that `bytes` from `offset` on touch. */
  addRange(offset: number, bytes: number, count: number): void {
    if (bytes === 0) return;
    const last = Math.floor((offset + bytes - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster++) this.add(cluster, count);
  }

  /** Writes what has changed to new places. Returns those of the table. */
  async write(fields: TableFields): Promise<Pick<TableFields, 'refcountTableOffset' | 'refcountTableClusters'>> {
    const clusterSize = this.#clusterSize;
    this.addRange(fields.refcountTableOffset, fields.refcountTableClusters * clusterSize, -1);
    let table = { refcountTableOffset: 0, refcountTableClusters: 0 };
    // To place a block changes refcounts, perhaps those of other blocks.
    while (this.#placeBlocks() || table.refcountTableClusters * clusterSize < 8 * this.#blocks.length) {
      if (table.refcountTableClusters * clusterSize >= 8 * this.#blocks.length) continue;
      this.addRange(table.refcountTableOffset, table.refcountTableClusters * clusterSize, -1);
      const clusters = Math.max(fields.refcountTableClusters, Math.ceil((8 * this.#blocks.length) / clusterSize));
      table = { refcountTableOffset: this.allocate(clusters), refcountTableClusters: clusters };
    }
    const entries = new DataView(new ArrayBuffer(table.refcountTableClusters * clusterSize));
    for (const [i, block] of this.#blocks.entries()) {
      if (block === undefined) continue;
      entries.setBigUint64(8 * i, BigInt(block.offset));
      if (block.before !== undefined) await this.#store.write(block.bytes, block.offset);
    }
    await this.#store.write(new Uint8Array(entries.buffer), table.refcountTableOffset);
    return table;
  }

  /** Gives each changed block a new place. Returns whether there was one without. */
  #placeBlocks(): boolean {
    let hasPlaced = false;
    for (const block of [...this.#blocks]) {
      if (block?.before === undefined || block.isPlaced) continue;
      block.isPlaced = true;
      hasPlaced = true;
      if (block.offset !== 0) this.addRange(block.offset, this.#clusterSize, -1);
      block.offset = this.allocate();
    }
    return hasPlaced;
  }

  /** Free in the file, and not taken since. */
  #isFree(cluster: number): boolean {
    const block = this.#blocks[Math.floor(cluster / this.#perBlock)];
    if (block === undefined) return true;
    const index = cluster % this.#perBlock;
    const wasUsed = block.before !== undefined && this.#value(block.before, index) !== 0;
    return !wasUsed && this.#value(block.bytes, index) === 0;
  }

  #value(bytes: Uint8Array, index: number): number {
    const bits = this.#bits;
    if (bits < 8) return ((bytes[(index * bits) >> 3] as number) >> ((index * bits) & 7)) & (2 ** bits - 1);
    let value = 0;
    const width = bits / 8;
    for (let i = 0; i < width; i++) value = value * 256 + (bytes[index * width + i] as number);
    return value;
  }

  #set(cluster: number, value: number): void {
    const number = Math.floor(cluster / this.#perBlock);
    const block = this.#blocks[number] ?? {
      ...{ offset: 0, bytes: new Uint8Array(this.#clusterSize), before: undefined, isPlaced: false },
    };
    this.#blocks[number] = block;
    block.before ??= block.bytes.slice();
    const index = cluster % this.#perBlock;
    const bits = this.#bits;
    if (bits < 8) {
      const at = (index * bits) >> 3;
      const shift = (index * bits) & 7;
      block.bytes[at] = ((block.bytes[at] as number) & ~((2 ** bits - 1) << shift)) | (value << shift);
      return;
    }
    const width = bits / 8;
    for (let i = width - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) {
      block.bytes[index * width + i] = rest % 256;
    }
  }
}
