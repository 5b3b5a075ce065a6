/**
 * A random sample of pages, taken while all of them pass by: groups of neighbouring pages that are not zero, as QEMU puts
 * them into a multifd packet (docs/formats/multifd.md, "Packets"), so that what compresses them sees what QEMU's channels
 * would. Every group has the same chance to be in the sample, by reservoir sampling: one reading, and the memory of the
 * sample.
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
  /** Pages that the group has which is passing by. */
  #pages = 0;
  /** Where it is kept; undefined if it is not in the sample. */
  #current: Slot | undefined;

  /** Keeps so many groups. */
  constructor(groups: number, random: Random) {
    this.#groups = groups;
    this.#random = random;
  }

  /** Takes the page at `at`, or lets it pass. */
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

  /** The next page does not belong to the group of the last: another block begins. */
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

  /** Groups that passed by. */
  get seen(): number {
    return this.#seen;
  }

  /** The sample, in no order that means anything. */
  get groups(): PageGroup[] {
    return this.#slots.map(({ room, pages, pageSize }) => ({ bytes: room.subarray(0, pages * pageSize), pageSize }));
  }
}
