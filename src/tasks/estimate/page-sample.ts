/**
 * A random sample of pages, taken in one reading. It consists of groups of neighbouring pages that are not zero, like
 * the pages of a multifd packet (docs/formats/multifd.md, "Packets"). So a compressor gets the same input as in QEMU's
 * channels. By reservoir sampling every group has the same chance, in memory for the sample only.
 */
import type { Random } from './seeded-random.ts';

/** Bytes of pages in a packet. */
export const groupBytes = 512 * 1024;

/** The pages of one packet. */
export interface PageGroup {
  bytes: Uint8Array;
  pageSize: number;
}

interface Slot {
  room: Uint8Array;
  pages: number;
  pageSize: number;
}

/** A random sample of pages, in groups the size of a multifd packet. */
export class PageSample {
  readonly #groups: number;
  readonly #random: Random;
  readonly #slots: Slot[] = [];
  #seen = 0;
  /** Pages in the current group. */
  #pages = 0;
  /** The place of the current group; undefined if it is not in the sample. */
  #current: Slot | undefined;

  /** Keeps at most this many groups. */
  constructor(groups: number, random: Random) {
    this.#groups = groups;
    this.#random = random;
  }

  /** Takes or skips the page at `at`. */
  take(bytes: Uint8Array, at: number, pageSize: number): void {
    if (this.#pages === 0) this.#begin(pageSize);
    const kept = this.#current;
    if (kept !== undefined) {
      kept.room.set(bytes.subarray(at, at + pageSize), this.#pages * pageSize);
      kept.pages = this.#pages + 1;
    }
    this.#pages++;
    if ((this.#pages + 1) * pageSize > groupBytes) this.endBlock();
  }

  /** Ends the current group, because another block begins. */
  endBlock(): void {
    this.#pages = 0;
    this.#current = undefined;
  }

  #begin(pageSize: number): void {
    this.#seen++;
    let at = this.#slots.length;
    if (at === this.#groups) at = Math.floor(this.#random() * this.#seen);
    if (at >= this.#groups) return;
    const slot = this.#slots[at] ?? { room: new Uint8Array(groupBytes), pages: 0, pageSize };
    slot.pages = 0;
    slot.pageSize = pageSize;
    this.#slots[at] = slot;
    this.#current = slot;
  }

  /** All groups so far. */
  get seen(): number {
    return this.#seen;
  }

  /** The sample, in arbitrary order. */
  get groups(): PageGroup[] {
    return this.#slots.map(({ room, pages, pageSize }) => ({ bytes: room.subarray(0, pages * pageSize), pageSize }));
  }
}
