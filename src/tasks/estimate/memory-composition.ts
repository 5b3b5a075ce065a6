/**
 * The composition of a VM's memory: zero pages, pages of one repeated byte, pages whose content occurred before, and
 * the rest. It reads the content once in address order, and identifies each page by its 64-bit hash
 * (docs/formats/dirty-rate.md). The hashes of pages of one repeated byte are computed in advance.
 */

import type { Abortable } from '../../io/abort.ts';
import { arenaBytes } from '../../kernel/arena-budget.ts';
import type { Kernel, KernelVariant } from '../../kernel/kernel.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { abortableRam } from '../../store/abortable-ram.ts';
import { ContentWindows, windowBytes } from '../../store/content-windows.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { DistinctPages } from './distinct-pages.ts';
import type { PageSample } from './page-sample.ts';

/** Pages of a block, or of all. The kinds add up to `pages`. */
export interface PageMakeUp {
  pages: number;
  /** Never sent by the source, if the file distinguishes them from zero pages (a mapped-ram file does not). */
  absent: number | undefined;
  zero: number;
  /** All bytes have the same value, other than zero. */
  sameByte: number;
  /** Their content occurred before, in this block or an earlier one. An estimate if `oneIn` of {@link MemoryComposition} is above 1. */
  duplicate: number;
  /** The rest: the first page of each content. */
  distinct: number;
}

/** Pages of one block. */
export interface BlockMakeUp extends PageMakeUp {
  idstr: string;
  pageSize: number;
}

/** What the memory consists of. */
export interface MemoryComposition {
  blocks: BlockMakeUp[];
  all: PageMakeUp;
  /** How pages are distributed over the blocks in order: how many of each `pagesPerPart` consecutive pages are not zero. */
  layout: { pagesPerPart: number; dataPages: number[] };
  duplicates: {
    /** Bits of the hash that identifies pages. */
    hashBits: number;
    /** The expected number of pairs of different pages with equal hashes. */
    falseMatches: number;
    /** In the end, one page in this many was counted. With 1, the numbers are exact except for false matches. */
    oneIn: number;
  };
}

/** Windows need not overlap, because pages are examined one by one. */
const needs = { reach: 1, behind: 0, skipZeros: true, bodyBytes: 1 << 20 };
const maxPages = needs.bodyBytes / 1024;
const maxPageBytes = 64 << 10;
const hashBits = 64;
/** The most parts of the layout. */
const maxParts = 256;

/** How memory is measured. */
export interface MakeUpOptions extends Abortable {
  /** Takes from the pages that are not zero. */
  sample?: PageSample;
  /** Selects blocks; default all. */
  only?: (block: RamBlock) => boolean;
  /** The build of the kernels. Default: SIMD if the platform has it. */
  variant?: KernelVariant;
  /** Twice the most hashes that are kept; a power of two. Default 2^22. */
  slots?: number;
}

/** Measures what memory consists of: zero pages, duplicates, and how its pages compress. */
export async function measureComposition(ram: RamReader, options: MakeUpOptions = {}): Promise<MemoryComposition> {
  return measureContent(abortableRam(ram, options), options);
}

async function measureContent(ram: RamReader, options: MakeUpOptions = {}): Promise<MemoryComposition> {
  const { sample, only = () => true, variant } = options;
  const kernel = await loadKernelFor([windowBytes(needs), arenaBytes(maxPages * 8, maxPageBytes, 8)], variant);
  const windows = new ContentWindows(kernel, needs);
  const hashes = kernel.u32(kernel.allocate(maxPages * 8), maxPages * 2);
  const knownHashes = new SameByteHashes(kernel);
  const distinct = new DistinctPages(options.slots);
  const blocks: BlockMakeUp[] = [];
  const wanted = ram.blocks.filter(only);
  const pagesPerPart = Math.ceil(wanted.reduce((sum, block) => sum + pageCount(block), 0) / maxParts);
  const layout = new Array<number>(maxParts).fill(0);
  let base = 0;
  for (const block of wanted) {
    const { pageSize } = block;
    const known = knownHashes.of(pageSize);
    let data = 0;
    let sameByte = 0;
    let duplicate = 0;
    for await (const { address, length, offset } of windows.read(ram, block)) {
      const count = length / pageSize;
      const firstPage = base + offset / pageSize;
      kernel.hashPages64(address, pageSize, count, hashes.byteOffset);
      for (let i = 0; i < count; i++) {
        const at = address + i * pageSize;
        const first = kernel.bytes[at] as number;
        const low = hashes[2 * i] as number;
        const high = hashes[2 * i + 1] as number;
        const isSame = low === known[2 * first] && high === known[2 * first + 1];
        if (isSame && first === 0) continue;
        data++;
        layout[Math.floor((firstPage + i) / pagesPerPart)]!++;
        if (isSame) sameByte++;
        else duplicate += distinct.add(high, low);
        sample?.take(kernel.bytes, at, pageSize);
      }
    }
    sample?.endBlock();
    const pages = pageCount(block);
    base += pages;
    const absent = ram.absentPages?.(block);
    // Scaled counts could exceed the number of pages.
    duplicate = Math.min(duplicate, data - sameByte);
    const zero = pages - data - (absent ?? 0);
    const distinctPages = data - sameByte - duplicate;
    blocks.push({ idstr: block.idstr, pageSize, pages, absent, zero, sameByte, duplicate, distinct: distinctPages });
  }
  const all = blocks.reduce(add, { pages: 0, absent: undefined, zero: 0, sameByte: 0, duplicate: 0, distinct: 0 });
  const falseMatches = all.distinct ** 2 / 2 ** (hashBits + 1);
  const parts = layout.slice(0, Math.ceil(all.pages / Math.max(1, pagesPerPart)));
  return {
    blocks,
    all,
    layout: { pagesPerPart, dataPages: parts },
    duplicates: { hashBits, falseMatches, oneIn: distinct.weight },
  };
}

function add(sum: PageMakeUp, block: PageMakeUp): PageMakeUp {
  return {
    pages: sum.pages + block.pages,
    absent: block.absent === undefined ? sum.absent : (sum.absent ?? 0) + block.absent,
    zero: sum.zero + block.zero,
    sameByte: sum.sameByte + block.sameByte,
    duplicate: sum.duplicate + block.duplicate,
    distinct: sum.distinct + block.distinct,
  };
}

/** The hashes of the 256 pages of one byte, as the kernel writes them. */
class SameByteHashes {
  readonly #kernel: Kernel;
  readonly #page: number;
  readonly #hash: Uint32Array;
  #pageSize = 0;
  #known = new Uint32Array(512);

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#page = kernel.allocate(maxPageBytes);
    this.#hash = kernel.u32(kernel.allocate(8), 2);
  }

  of(pageSize: number): Uint32Array {
    if (pageSize === this.#pageSize) return this.#known;
    this.#pageSize = pageSize;
    for (let value = 0; value < 256; value++) {
      this.#kernel.bytes.fill(value, this.#page, this.#page + pageSize);
      this.#kernel.hashPages64(this.#page, pageSize, 1, this.#hash.byteOffset);
      this.#known.set(this.#hash, 2 * value);
    }
    return this.#known;
  }
}
