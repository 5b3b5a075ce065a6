/**
 * Block nodes: the disks of a VM, which its guest never reads or writes. They hold internal snapshots and dirty bitmaps.
 *
 *     BlockNodes ──→ BlockNode ──→ WritableQcow2 (snapshots)
 *                        └───────→ BlockBitmap (what was written, one bit for `granularity` bytes)
 *
 * The texts of errors are QEMU's.
 */
import { BlockCache } from '../io/block-cache.ts';
import type { ByteStore } from '../io/byte-source.ts';
import { qcow2Magic } from '../read/container/qcow2-header.ts';
import { WritableQcow2 } from '../write/qcow2/qcow2-image.ts';
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

  /** Closes their files. */
  async close(): Promise<void> {
    for (const { store } of this.list) await store.close();
  }
}
