/**
 * Which pages have a content that was there before: a set of 64-bit hashes in bounded memory.
 *
 * Up to its capacity the set knows every hash. When it is full it goes on with the half of them whose hash has one zero
 * bit more at its end, then with a quarter, and so on: each page that is still looked at stands for 2, 4, ... pages. A
 * hash is chosen by itself alone, so all copies of a page are looked at, or none.
 */

/** Slots of 8 bytes at most: 32 MiB. */
const maxSlots = 1 << 22;
const minSlots = 1 << 12;

export class DistinctPages {
  /** Each slot a hash, high word first; both words zero: free. */
  #slots = new Uint32Array(2 * minSlots);
  #count = 0;
  readonly #maxSlots: number;
  /** A page is looked at if the hash has these bits zero. */
  #mask = 0;

  /** `slots` is a power of two; half of them are used at most. */
  constructor(slots = maxSlots) {
    this.#maxSlots = slots;
  }

  /** How many pages each page stands for that is looked at now. 1: it was never too much. */
  get weight(): number {
    return this.#mask + 1;
  }

  /** Takes in a hash. Returns how many pages with a content that was there before it stands for, if it has one. */
  add(high: number, low: number): number {
    if ((high & this.#mask) !== 0) return 0;
    if (!this.#insert(high, low)) return this.#mask + 1;
    if (this.#count * 2 > this.#slots.length / 2) this.#makeRoom();
    return 0;
  }

  /** Whether the hash is new. */
  #insert(high: number, low: number): boolean {
    const slots = this.#slots;
    const last = slots.length / 2 - 1;
    let at = low & last;
    for (; (slots[2 * at] as number) !== 0 || (slots[2 * at + 1] as number) !== 0; at = (at + 1) & last) {
      if (slots[2 * at] === high && slots[2 * at + 1] === low) return false;
    }
    slots[2 * at] = high;
    slots[2 * at + 1] = low;
    this.#count++;
    return true;
  }

  #makeRoom(): void {
    const old = this.#slots;
    const isFull = old.length / 2 >= this.#maxSlots;
    if (isFull) this.#mask = this.#mask * 2 + 1;
    this.#slots = new Uint32Array(isFull ? old.length : 2 * old.length);
    this.#count = 0;
    for (let i = 0; i < old.length; i += 2) {
      const [high, low] = [old[i] as number, old[i + 1] as number];
      if ((high !== 0 || low !== 0) && (high & this.#mask) === 0) this.#insert(high, low);
    }
  }
}
