/**
 * Finds pages whose content occurred before, with a set of 64-bit hashes in bounded memory.
 *
 * Up to its capacity the set holds every hash. When it is full, it keeps the half of them whose hash ends in one more zero
 * bit, then a quarter, and so on. Each page that still counts stands for 2, 4, ... pages. The hash alone decides, so either
 * all copies of a page count or none.
 */

/** The most slots of 8 bytes: 32 MiB. */
const maxSlots = 1 << 22;
const minSlots = 1 << 12;

/** A set of hashes in bounded memory. */
export class DistinctPages {
  /** A hash in each slot, high word first. A slot with two zero words is free. */
  #slots = new Uint32Array(2 * minSlots);
  #count = 0;
  readonly #maxSlots: number;
  /** A page counts if these bits of its hash are zero. */
  #mask = 0;

  /** `slots` is a power of two; at most half of them are used. */
  constructor(slots = maxSlots) {
    this.#maxSlots = slots;
  }

  /** How many pages each counted page stands for at present. 1: the set never overflowed. */
  get weight(): number {
    return this.#mask + 1;
  }

  /** Adds a hash. Returns how many duplicate pages it stands for; 0 if it is new or does not count. */
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
