/**
 * Checkpoints that a synthetic guest takes as the secondary side of COLO: pages are collected beside its RAM, and become its
 * RAM at once. What it has written itself since the last checkpoint is undone, because the cache has all of the primary's RAM.
 *
 *     cache   | base, under what came |  ── pages that came, and pages that the guest wrote ──→  | RAM of the guest |
 */
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedDevices } from '../vm/saved-vm.ts';
import type { GuestRam } from './guest-ram.ts';
import type { SyntheticGuest } from './synthetic-guest.ts';

/** Pages copied at a time. */
const runPages = 64;

/** Takes checkpoints for a synthetic guest, of which only the last whole one counts. */
export class GuestCheckpoints {
  readonly #guest: SyntheticGuest;
  readonly #cache: GuestRam;
  readonly #tracking: ReturnType<SyntheticGuest['trackDirty']>;
  /** Pages in which the guest may differ from the cache, by block. */
  readonly #different: readonly PageBitmap[];
  #devices: SavedDevices;

  /** Use `SyntheticGuest.beginCheckpoints`. `cache` has the content of the guest's RAM. */
  constructor(guest: SyntheticGuest, cache: GuestRam) {
    this.#guest = guest;
    this.#cache = cache;
    this.#tracking = guest.trackDirty();
    this.#different = guest.blocks.map((block) => new PageBitmap(block));
    this.#devices = guest.saveDevices();
  }

  /** The blocks of the guest. */
  get blocks(): readonly RamBlock[] {
    return this.#guest.blocks;
  }

  /** Device states of the last checkpoint. */
  get devices(): SavedDevices {
    return this.#devices;
  }

  /** Takes whole pages of the next checkpoint. */
  async write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> {
    await this.#cache.write(block, page, bytes);
    const end = page + bytes.length / block.pageSize;
    for (let at = page; at < end; at++) this.#different[block.index]?.set(at);
  }

  /** Reads whole pages of the next checkpoint, as far as it has come. */
  read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    return this.#cache.read(block, page, target);
  }

  /** Makes the guest what was taken. It is stopped. */
  async apply(devices: SavedDevices): Promise<void> {
    await this.#tracking.sync(this.#different);
    for (const block of this.blocks) {
      const different = this.#different[block.index] as PageBitmap;
      for (let first = different.nextSet(0); first < different.pages; first = different.nextSet(first)) {
        const end = Math.min(different.nextClear(first), first + runPages);
        const bytes = new Uint8Array((end - first) * block.pageSize);
        await this.#cache.read(block, first, bytes);
        await this.#guest.ram.write(block, first, bytes);
        for (let page = first; page < end; page++) different.clear(page);
      }
    }
    this.#devices = devices;
    this.#guest.loadDevices(devices);
  }
}
