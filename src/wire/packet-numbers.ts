/**
 * Finds missing multifd packets by their numbers (docs/formats/multifd.md, "Packets"). Since 9.0 one count over all
 * channels has no gaps, so a gap means that a channel is missing. Earlier versions skipped and repeated numbers, and
 * device states may take part in the count. In those cases a gap alone proves nothing.
 */
import { isBitSet } from '../vm/bits.ts';

/** The most numbers tracked: 1 MiB of bits, for packets with 4 TiB of pages. */
const maxNumbers = 1 << 23;

/** Numbers that no packet had. */
export interface LostPackets {
  first: number;
  count: number;
  /** Packets that were sent, as far as the numbers show. */
  of: number;
}

export class PacketNumbers {
  #seen = new Uint8Array(1 << 10);
  #count = 0;
  /** After the highest number. */
  #end = 0;
  #isReliable = true;

  /** Adds a RAM packet. `pagesAllocated` identifies a SYNC of 9.0 and later. */
  add(number: bigint, { sync, pagesAllocated }: { sync: boolean; pagesAllocated: number }): void {
    if (number >= maxNumbers || (sync && pagesAllocated > 0)) this.disable();
    if (number >= maxNumbers) return;
    const at = Number(number);
    if (at >> 3 >= this.#seen.length) {
      const seen = new Uint8Array(2 ** Math.ceil(Math.log2((at >> 3) + 1)));
      seen.set(this.#seen);
      this.#seen = seen;
    }
    const [byte, bit] = [this.#seen[at >> 3] as number, 1 << (at & 7)];
    // A repeated number.
    if ((byte & bit) !== 0) this.disable();
    else this.#count++;
    this.#seen[at >> 3] = byte | bit;
    this.#end = Math.max(this.#end, at + 1);
  }

  /** From here on a gap proves nothing. */
  disable(): void {
    this.#isReliable = false;
  }

  /** Whether a gap proves that a packet is missing. */
  get isReliable(): boolean {
    return this.#isReliable;
  }

  /** Whether some number below the highest one is missing. */
  get hasGaps(): boolean {
    return this.#count < this.#end;
  }

  /**
   * How many numbers below the highest one no packet had. Undefined if none is missing, or if the numbers prove
   * nothing.
   */
  lost(): LostPackets | undefined {
    if (!this.#isReliable || this.#count === this.#end) return undefined;
    let first = 0;
    while (isBitSet(this.#seen, first)) first++;
    return { first, count: this.#end - this.#count, of: this.#end };
  }
}
