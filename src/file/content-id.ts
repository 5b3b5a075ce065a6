/**
 * Ids of contents of RAM, by which a file of changes knows its base again (docs/formats/incremental.md, "The ids"): a sum
 * over all pages that are not zero, of what each page's hash, number and block come to. They tell contents apart that are
 * mistaken for each other; they are no protection against somebody who wants them to be equal.
 */
import type { Kernel } from '../kernel/kernel.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { isBitSet, type PairWindow, pairWindowPages } from './page-pairs.ts';

/** What it takes of a kernel's arena. */
export const contentIdsArenaBytes = 3 * (pairWindowPages * 4 + 64);

/** The ids of two contents with the same blocks, which are seen side by side. */
export class ContentIds {
  readonly #kernel: Kernel;
  readonly #old = new Sum();
  readonly #new = new Sum();
  /** Hashes of the old pages, of those of the new that are others, and where these are. */
  readonly #oldHashes: Uint32Array;
  readonly #newHashes: Uint32Array;
  readonly #addresses: Uint32Array;

  /** Takes its room from the kernel's arena. */
  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    const table = () => kernel.u32(kernel.allocate(pairWindowPages * 4), pairWindowPages);
    this.#oldHashes = table();
    this.#newHashes = table();
    this.#addresses = table();
  }

  get old(): string {
    return this.#old.toString();
  }

  get new(): string {
    return this.#new.toString();
  }

  /** Takes the pages of a window in. Those that no window has are zero in both. */
  add(block: RamBlock, window: PairWindow): void {
    const { first, count, changed, oldZero, newZero } = window;
    const { pageSize } = block;
    const seed = seedOf(block);
    this.#kernel.hashPages(window.old, pageSize, count, this.#oldHashes.byteOffset);
    let others = 0;
    for (let i = 0; i < count; i++) {
      const hash = this.#oldHashes[i] as number;
      if (!isBitSet(oldZero, i)) this.#old.add(hash, first + i, seed);
      if (isBitSet(newZero, i)) continue;
      if (isBitSet(changed, i)) this.#addresses[others++] = window.new + i * pageSize;
      else this.#new.add(hash, first + i, seed);
    }
    if (others === 0) return;
    this.#kernel.hashPagesGather(this.#addresses.byteOffset, pageSize, others, this.#newHashes.byteOffset);
    for (let k = 0; k < others; k++) {
      const page = first + ((this.#addresses[k] as number) - window.new) / pageSize;
      this.#new.add(this.#newHashes[k] as number, page, seed);
    }
  }
}

/** A block's name, one byte a character, and its page size: FNV-1a. */
function seedOf({ idstr, pageSize }: RamBlock): number {
  let hash = Math.imul(0x811c9dc5 ^ Math.log2(pageSize), 0x01000193);
  for (let i = 0; i < idstr.length; i++) hash = Math.imul(hash ^ idstr.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The sum modulo 2^64, as two sums modulo 2^32 of two mixtures of the same numbers. */
class Sum {
  #high = 0;
  #low = 0;

  add(hash: number, page: number, seed: number): void {
    const number = (page ^ Math.imul(Math.floor(page / 2 ** 32), 0x9e3779b1)) >>> 0;
    const place = Math.imul(number ^ seed, 0x85ebca77) ^ seed;
    this.#high = (this.#high + mix(hash ^ place, 0x85ebca6b, 0xc2b2ae35)) >>> 0;
    this.#low = (this.#low + mix(Math.imul(hash, 0x27d4eb2f) ^ ~place, 0x7feb352d, 0x846ca68b)) >>> 0;
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
