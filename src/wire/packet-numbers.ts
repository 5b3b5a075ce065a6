/**
 * Which multifd packets there were, by their numbers (docs/formats/multifd.md, "Packets"): since 9.0 one count over all
 * channels leaves none out, so that a number which no channel has is of a channel that is missing. Before, numbers were
 * left out and came again: such packets, and a count that device states may have a part in, say nothing.
 */
import { isBitSet } from '../vm/bits.ts';

/** Numbers that are kept: 1 MiB of bits, packets with 4 TiB of pages. */
const maxNumbers = 1 << 23;

/** Numbers that no packet had. */
export interface LostPackets {
  first: number;
  count: number;
  /** Packets that were sent, as far as the numbers tell. */
  of: number;
}

export class PacketNumbers {
  #seen = new Uint8Array(1 << 10);
  #count = 0;
  /** After the highest number. */
  #end = 0;
  #isReliable = true;

  /** Takes a RAM packet. `pagesAllocated` tells a SYNC of 9.0 and later. */
  add(number: bigint, { sync, pagesAllocated }: { sync: boolean; pagesAllocated: number }): void {
    if (number >= maxNumbers || (sync && pagesAllocated > 0)) this.disable();
    if (!this.#isReliable) return;
    const at = Number(number);
    if (at >> 3 >= this.#seen.length) {
      const seen = new Uint8Array(2 ** Math.ceil(Math.log2((at >> 3) + 1)));
      seen.set(this.#seen);
      this.#seen = seen;
    }
    const [byte, bit] = [this.#seen[at >> 3] as number, 1 << (at & 7)];
    // Came again.
    if ((byte & bit) !== 0) this.disable();
    else this.#count++;
    this.#seen[at >> 3] = byte | bit;
    this.#end = Math.max(this.#end, at + 1);
  }

  /** From here on the numbers say nothing. */
  disable(): void {
    this.#isReliable = false;
  }

  /** The numbers below the highest that no packet had; undefined if there are none, or nothing can be said. */
  lost(): LostPackets | undefined {
    if (!this.#isReliable || this.#count === this.#end) return undefined;
    let first = 0;
    while (isBitSet(this.#seen, first)) first++;
    return { first, count: this.#end - this.#count, of: this.#end };
  }
}
