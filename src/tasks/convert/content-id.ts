/**
 * Ids of RAM contents. A file of changes recognizes its base by its id (docs/formats/incremental.md, "The ids"). An id
 * is a sum over all nonzero pages, computed from each page's hash, number and block. Ids detect honest mistakes, not
 * deliberate forgeries: it is easy to make two contents with the same id.
 */
import { arenaBytes } from '../../kernel/arena-budget.ts';
import type { Kernel } from '../../kernel/kernel.ts';
import { type PairWindow, pairWindowPages } from '../../store/page-pairs.ts';
import { isBitSet } from '../../vm/bits.ts';
import type { RamBlock } from '../../vm/ram-block.ts';

/** Bytes of a kernel's arena that it needs. */
export const contentIdsArenaBytes = 2 * arenaBytes(pairWindowPages * 8);

/** Computes the ids of two contents with the same blocks, side by side. */
export class ContentIds {
  readonly #kernel: Kernel;
  readonly #old = new Sum();
  readonly #new = new Sum();
  /** Hashes of the old and the new pages, each with the low word first. */
  readonly #oldHashes: Uint32Array;
  readonly #newHashes: Uint32Array;

  /** Allocates its buffers in the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    const table = () => kernel.u32(kernel.allocate(pairWindowPages * 8), 2 * pairWindowPages);
    this.#oldHashes = table();
    this.#newHashes = table();
  }

  get old(): string {
    return this.#old.toString();
  }

  get new(): string {
    return this.#new.toString();
  }

  /** Adds the pages of a window. Pages outside of all windows are zero in both. */
  add(block: RamBlock, window: PairWindow): void {
    const { first, count, changed, changedCount, oldZero, newZero } = window;
    const { pageSize } = block;
    const seed = seedOf(block);
    this.#kernel.hashPages64(window.old, pageSize, count, this.#oldHashes.byteOffset);
    if (changedCount > 0) this.#kernel.hashPages64(window.new, pageSize, count, this.#newHashes.byteOffset);
    for (let i = 0; i < count; i++) {
      const page = first + i;
      if (!isBitSet(oldZero, i)) this.#old.add(this.#oldHashes, i, page, seed);
      const hashes = isBitSet(changed, i) ? this.#newHashes : this.#oldHashes;
      if (!isBitSet(newZero, i)) this.#new.add(hashes, i, page, seed);
    }
  }
}

/** Hashes a block's name, one byte per character, and its page size with FNV-1a. */
function seedOf({ idstr, pageSize }: RamBlock): number {
  let hash = Math.imul(0x811c9dc5 ^ Math.log2(pageSize), 0x01000193);
  for (let i = 0; i < idstr.length; i++) hash = Math.imul(hash ^ idstr.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The sum modulo 2^64, as two sums modulo 2^32 of two mixtures of the same numbers. */
class Sum {
  #high = 0;
  #low = 0;

  /** Adds the page whose hash is the one of number `i`. */
  add(hashes: Uint32Array, i: number, page: number, seed: number): void {
    const low = hashes[2 * i] as number;
    const high = hashes[2 * i + 1] as number;
    const number = (page ^ Math.imul(Math.floor(page / 2 ** 32), 0x9e3779b1)) >>> 0;
    const place = Math.imul(number ^ seed, 0x85ebca77) ^ seed;
    this.#high = (this.#high + mix(low ^ place, 0x85ebca6b, 0xc2b2ae35)) >>> 0;
    this.#low = (this.#low + mix(Math.imul(high, 0x27d4eb2f) ^ ~place, 0x7feb352d, 0x846ca68b)) >>> 0;
  }

  toString(): string {
    return [this.#high, this.#low].map((half) => half.toString(16).padStart(8, '0')).join('');
  }
}

/** A bijection in which every bit of the input changes about half of the output. */
function mix(value: number, first: number, second: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), first);
  x = Math.imul(x ^ (x >>> 13), second);
  return (x ^ (x >>> 16)) >>> 0;
}
