/**
 * Block nodes: the disks of a VM, which its guest never reads or writes. They hold internal snapshots and dirty bitmaps.
 *
 *     BlockNodes ──→ BlockNode ──→ WritableQcow2 (snapshots, and the bitmaps that are persistent)
 *                        └───────→ BlockBitmap (what was written, one bit for `granularity` bytes)
 *
 * The texts of errors are QEMU's.
 */
import { BlockCache } from '../io/block-cache.ts';
import type { ByteStore } from '../io/byte-source.ts';
import { qcow2Magic } from '../read/container/qcow2-header.ts';
import { type KeptBitmap, WritableQcow2 } from '../write/qcow2/qcow2-image.ts';
import { BlockBitmap } from './block-bitmap.ts';

/** A disk to be opened. */
export interface BlockNodeOptions {
  id: string;
  /** As it was given. */
  path: string;
  /** Default: as the file's first bytes say. */
  format?: 'qcow2' | 'raw' | undefined;
  store: ByteStore;
  /** Bytes that the file takes on its disk. */
  allocatedBytes: () => number;
}

/** The most bytes of a bitmap's name. */
const maxNameBytes = 1023;
const minGranularity = 512;

/** A disk. Its id is the name of its node, and of its device. */
export class BlockNode {
  readonly id: string;
  readonly path: string;
  readonly store: ByteStore;
  /** Bytes that its file takes. */
  readonly allocatedBytes: () => number;
  /** Undefined: a raw image, which has no snapshots. */
  readonly image: WritableQcow2 | undefined;
  /** Newest first. */
  readonly bitmaps: BlockBitmap[] = [];
  /** The bitmaps that are in the image, in its order, without their bits. They are in use while the node is open. */
  #kept: KeptBitmap[] = [];
  #hasLoaded = false;

  private constructor({ id, path, store, allocatedBytes }: BlockNodeOptions, image: WritableQcow2 | undefined) {
    this.id = id;
    this.path = path;
    this.store = store;
    this.allocatedBytes = allocatedBytes;
    this.image = image;
  }

  /** Opens a disk. @throws MigrationError for a qcow2 image that cannot be written */
  static async open(options: BlockNodeOptions): Promise<BlockNode> {
    const { store } = options;
    const isQcow2 = async () => {
      if (store.size < 4) return false;
      const head = await new BlockCache(store).read(0, 4);
      return new DataView(head.buffer, head.byteOffset).getUint32(0) === qcow2Magic;
    };
    const { format = (await isQcow2()) ? 'qcow2' : 'raw' } = options;
    return new BlockNode(options, format === 'qcow2' ? await WritableQcow2.open(store) : undefined);
  }

  /** Bytes of the virtual disk. */
  get diskSize(): number {
    return this.image?.header.diskSize ?? Math.ceil(this.store.size / 512) * 512;
  }

  /** @throws Error if there is no such bitmap */
  bitmap(name: string): BlockBitmap {
    const found = this.bitmaps.find((each) => each.name === name);
    if (found === undefined) throw new Error(`Dirty bitmap '${name}' not found`);
    return found;
  }

  /** Makes an empty bitmap. @throws Error with QEMU's text */
  addBitmap(
    name: string,
    { granularity = this.#defaultGranularity, isEnabled = true, isPersistent = false }: Partial<BlockBitmap> = {},
  ): BlockBitmap {
    if (granularity < minGranularity || !Number.isInteger(Math.log2(granularity))) {
      throw new Error(`Granularity must be power of 2 and at least ${minGranularity}`);
    }
    if (isPersistent) this.#requirePersistence(name);
    if (this.bitmaps.some((each) => each.name === name)) throw new Error(`Bitmap already exists: ${name}`);
    if (new TextEncoder().encode(name).length > maxNameBytes) throw new Error(`Bitmap name too long: ${name}`);
    const bitmap = new BlockBitmap({ name, granularity, isEnabled, isPersistent, diskSize: this.diskSize });
    this.bitmaps.unshift(bitmap);
    return bitmap;
  }

  /**
   * Reads the bitmaps of the image, and marks them there as in use. Those that are already can only be removed.
   * @throws MigrationError if the image is bad
   */
  async loadBitmaps(): Promise<void> {
    const { image } = this;
    this.#hasLoaded = true;
    if (image === undefined || !image.hasBitmaps) return;
    for (const { bits, ...kept } of await image.bitmaps()) {
      this.#kept.push({ ...kept, isInUse: true });
      if (this.bitmaps.some(({ name }) => name === kept.name)) continue;
      const isEnabled = kept.isAuto && !kept.isInUse;
      const bitmap = new BlockBitmap({ ...kept, isEnabled, isPersistent: true, diskSize: this.diskSize });
      bitmap.isInconsistent = kept.isInUse;
      if (bits !== undefined) bitmap.bits.set(bits);
      this.bitmaps.unshift(bitmap);
    }
    await image.useBitmaps();
  }

  /** Keeps the persistent bitmaps in the image, as when QEMU closes it. Without {@link loadBitmaps} before it does nothing. */
  async keepBitmaps(): Promise<void> {
    if (!this.#hasLoaded) return;
    const order = this.#kept.map(({ name }) => name);
    const rank = ({ name }: BlockBitmap) => (order.includes(name) ? order.indexOf(name) : order.length);
    const persistent = this.bitmaps.filter(({ isPersistent }) => isPersistent).sort((a, b) => rank(a) - rank(b));
    const kept = persistent.map(({ name, granularity, isEnabled, isInconsistent, bits }): KeptBitmap => {
      const old = this.#kept.find((each) => each.name === name);
      if (isInconsistent && old !== undefined) return old;
      return { name, granularity, isAuto: isEnabled, isInUse: false, bits };
    });
    await this.image?.keepBitmaps(kept);
    this.#kept = kept.map(({ bits: _, ...rest }) => rest);
  }

  /** Forgets a bitmap, in the image, too. */
  async forgetBitmap(bitmap: BlockBitmap): Promise<void> {
    this.removeBitmap(bitmap);
    const left = this.#kept.filter(({ name }) => name !== bitmap.name);
    if (left.length === this.#kept.length) return;
    this.#kept = left;
    await this.image?.keepBitmaps(left);
  }

  /** Forgets a bitmap. */
  removeBitmap(bitmap: BlockBitmap): void {
    this.bitmaps.splice(this.bitmaps.indexOf(bitmap), 1);
  }

  get #defaultGranularity(): number {
    const clusterSize = this.image === undefined ? 65_536 : 2 ** this.image.header.clusterBits;
    return Math.min(65_536, Math.max(4096, clusterSize));
  }

  #requirePersistence(name: string): void {
    if (this.image === undefined)
      throw new Error(`Can't store persistent bitmaps to ${this.id}: Operation not supported`);
    if (this.image.header.version === 2) {
      const why = 'Cannot store dirty bitmaps in qcow2 v2 files';
      throw new Error(`Can't make bitmap '${name}' persistent in '${this.id}': ${why}`);
    }
  }
}

/** The disks of a VM, in the order of the command line. */
export class BlockNodes {
  readonly list: readonly BlockNode[];

  constructor(list: readonly BlockNode[]) {
    this.list = list;
  }

  /** The node with that id. */
  get(id: string): BlockNode | undefined {
    return this.list.find((node) => node.id === id);
  }

  /** Reads the bitmaps of their images. */
  async loadBitmaps(): Promise<void> {
    for (const node of this.list) await node.loadBitmaps();
  }

  /** Keeps the persistent bitmaps in the images. */
  async keepBitmaps(): Promise<void> {
    for (const node of this.list) await node.keepBitmaps();
  }

  /** Closes their files. */
  async close(): Promise<void> {
    for (const { store } of this.list) await store.close();
  }
}
