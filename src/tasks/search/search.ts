/**
 * search: finds patterns in the final content of RAM. Each block is searched from its first byte to its last, including
 * zeros and pages that were never sent, but without pages that a partial file lacks. A match may cross pages, but not blocks.
 *
 * The matches of one pattern do not overlap: its search continues at the end of each match. Several patterns are
 * searched for at once, each independently.
 */

import { arenaBytes } from '../../kernel/arena-budget.ts';
import type { Kernel, KernelVariant } from '../../kernel/kernel.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { abortableRam } from '../../store/abortable-ram.ts';
import { type ContentWindow, ContentWindows, windowBytes } from '../../store/content-windows.ts';
import type { MissingRam } from '../../store/missing-ram.ts';
import { openSavedVm, type RamContentOptions } from '../../store/ram-content.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { BytesFinder, type Finder, type Found, RegexFinder, type ToText, widen } from './finder.ts';
import { maxMatchBytes, type SearchPattern, toPattern } from './pattern.ts';

/** The most patterns in one search. */
export const maxPatterns = 1000;

/** A match in RAM. */
export interface Match {
  block: RamBlock;
  /** Its offset in the block, in bytes. */
  offset: number;
  /** Its bytes. */
  bytes: Uint8Array;
  /** The number of the pattern, from 0. */
  pattern: number;
  /** Bytes of context: the requested number, or fewer at the ends of the block. */
  before: Uint8Array;
  after: Uint8Array;
}

/** What is searched, and how much context each match has. */
export interface MatchOptions {
  /** Bytes of context with each match, at most 4,096. Default 0. */
  before?: number;
  after?: number;
  /**
   * Converts bytes to text for regular expressions: one character per byte, with the byte's number. The default is
   * portable; in Node `Buffer.latin1Slice` is faster.
   */
  toText?: ToText;
  /** Bytes read at a time, at least a page. Default 1 MiB. */
  bodyBytes?: number;
  /** The build of the kernels. Default: SIMD if the platform has it. */
  variant?: KernelVariant;
}

/** How a file is searched. */
export interface SearchOptions extends RamContentOptions, MatchOptions {}

/**
 * Searches a file's RAM block by block, with matches in ascending order. {@link openSavedVm} explains how the
 * content is read.
 * @throws MigrationError if the file is bad; TypeError, RangeError for invalid patterns.
 */
export async function* search(
  file: MigrationFile,
  patterns: SearchPattern | readonly SearchPattern[],
  options: SearchOptions,
): AsyncGenerator<Match, void> {
  const searcher = await Searcher.make(patterns, options);
  const vm = await openSavedVm(file, options);
  const ram = abortableRam(vm.ram, options);
  try {
    for (const block of wantedBlocks(ram, options)) {
      for await (const matches of searcher.search(ram, block)) yield* withoutMissing(matches, vm.missing);
    }
  } finally {
    await ram.close();
  }
}

/**
 * Counts the matches that {@link search} would find. If there are many, this is much faster than iterating over them.
 */
export async function countMatches(
  file: MigrationFile,
  patterns: SearchPattern | readonly SearchPattern[],
  options: SearchOptions,
): Promise<number> {
  return whileAllowed(options, [file], () => countInFile(file, patterns, options));
}

async function countInFile(
  file: MigrationFile,
  patterns: SearchPattern | readonly SearchPattern[],
  options: SearchOptions,
): Promise<number> {
  const searcher = await Searcher.make(patterns, options);
  const { ram, missing } = await openSavedVm(file, options);
  try {
    let count = 0;
    for (const block of wantedBlocks(ram, options)) {
      if (missing === undefined) count += await searcher.count(ram, block);
      else
        for await (const matches of searcher.search(ram, block)) count += [...withoutMissing(matches, missing)].length;
    }
    return count;
  } finally {
    await ram.close();
  }
}

/** The matches that lie in memory which the file has. */
function* withoutMissing(matches: Iterable<Match>, missing: MissingRam | undefined): Generator<Match, void> {
  for (const match of matches) {
    const { block, offset, bytes } = match;
    const first = Math.floor(offset / block.pageSize);
    if (missing?.hasAny(block, first, Math.ceil((offset + bytes.length) / block.pageSize)) !== true) yield match;
  }
}

function wantedBlocks({ blocks }: RamReader, { only = () => true }: RamContentOptions): readonly RamBlock[] {
  return blocks.filter(only);
}

/** Prepared patterns, for content that is already open. One block is searched at a time. */
export class Searcher {
  readonly #kernel: Kernel;
  readonly #finders: Finder[];
  readonly #windows: ContentWindows;
  readonly #before: number;
  readonly #after: number;

  private constructor(kernel: Kernel, finders: Finder[], windows: ContentWindows, before: number, after: number) {
    this.#kernel = kernel;
    this.#finders = finders;
    this.#windows = windows;
    this.#before = before;
    this.#after = after;
  }

  /** @throws TypeError, RangeError for invalid patterns, or too many. */
  static async make(patterns: SearchPattern | readonly SearchPattern[], options: MatchOptions = {}): Promise<Searcher> {
    const list = (Array.isArray(patterns) ? patterns : [patterns]).map(toPattern);
    if (list.length < 1 || list.length > maxPatterns) {
      throw new RangeError(`expected 1 to ${maxPatterns} patterns, got ${list.length}`);
    }
    const { before = 0, after = 0, toText = widen(), bodyBytes = 1 << 20, variant } = options;
    checkContext('before', before);
    checkContext('after', after);
    checkBody(bodyBytes);
    const most = { reach: maxMatchBytes + after, behind: Math.max(maxMatchBytes, before), skipZeros: true, bodyBytes };
    const patternBytes = arenaBytes(...list.map((each) => ('values' in each ? 2 * each.values.length : 256)));
    const kernel = await loadKernelFor([windowBytes(most), patternBytes], variant);
    const finders = list.map((each) =>
      'values' in each ? new BytesFinder(kernel, each) : new RegexFinder(kernel, each, toText),
    );
    const windows = new ContentWindows(kernel, {
      reach: Math.max(...finders.map(({ reach }) => reach)) + after,
      behind: Math.max(before, ...finders.map(({ behind }) => behind)),
      skipZeros: !finders.some(({ matchesZeros }) => matchesZeros),
      bodyBytes,
    });
    return new Searcher(kernel, finders, windows, before, after);
  }

  /** Searches a block of content. Yields the matches of each window; use them before you request the next. */
  async *search(ram: RamReader, block: RamBlock): AsyncGenerator<Iterable<Match>, void> {
    const next = this.#begin();
    for await (const window of this.#windows.read(ram, block)) yield this.#matches(block, window, next);
  }

  /** Counts the matches in a block of content. */
  async count(ram: RamReader, block: RamBlock): Promise<number> {
    const next = this.#begin();
    let count = 0;
    for await (const window of this.#windows.read(ram, block)) {
      const until = window.until - window.offset;
      for (const [pattern, finder] of this.#finders.entries()) {
        let from = Math.max(window.from, next[pattern] as number) - window.offset;
        while (from < until) {
          const found = finder.find(window, from, until);
          if (found === undefined) break;
          count++;
          from = found.at + found.length;
        }
        next[pattern] = window.offset + from;
      }
    }
    return count;
  }

  /** The position in the block at which the search for each pattern continues. */
  #begin(): Float64Array {
    return new Float64Array(this.#finders.length);
  }

  /** All matches that a window reports, ascending. */
  *#matches(block: RamBlock, window: ContentWindow, next: Float64Array): Generator<Match, void> {
    const until = window.until - window.offset;
    const find = (finder: Finder, pattern: number): Found | undefined => {
      const from = Math.max(window.from, next[pattern] as number) - window.offset;
      return from < until ? finder.find(window, from, until) : undefined;
    };
    const found = this.#finders.map(find);
    for (;;) {
      const pattern = firstOf(found);
      if (pattern === -1) return;
      const { at, length } = found[pattern] as Found;
      yield { block, offset: window.offset + at, pattern, ...this.#cut(window, at, length) };
      next[pattern] = window.offset + at + length;
      found[pattern] = find(this.#finders[pattern] as Finder, pattern);
    }
  }

  #cut(
    { address, length: size }: ContentWindow,
    at: number,
    length: number,
  ): Pick<Match, 'bytes' | 'before' | 'after'> {
    const from = Math.max(0, at - this.#before);
    const to = Math.min(size, at + length + this.#after);
    const all = this.#kernel.bytes.slice(address + from, address + to);
    const [begin, end] = [at - from, at - from + length];
    return { bytes: all.subarray(begin, end), before: all.subarray(0, begin), after: all.subarray(end) };
  }
}

/** The pattern with the first match. If several match there, the first of them. */
function firstOf(found: readonly (Found | undefined)[]): number {
  let first = -1;
  let at = Number.POSITIVE_INFINITY;
  for (let i = 0; i < found.length; i++) {
    const match = found[i];
    if (match === undefined || match.at >= at) continue;
    first = i;
    at = match.at;
  }
  return first;
}

function checkContext(name: string, bytes: number): void {
  if (Number.isInteger(bytes) && bytes >= 0 && bytes <= maxMatchBytes) return;
  throw new RangeError(`${name}: expected 0 to ${maxMatchBytes} bytes of context, got ${bytes}`);
}

function checkBody(bytes: number): void {
  if (Number.isInteger(bytes) && bytes >= 1 && bytes <= 1 << 28) return;
  throw new RangeError(`bodyBytes: expected 1 to 2^28, got ${bytes}`);
}
