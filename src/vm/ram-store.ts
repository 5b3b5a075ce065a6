/** RamReader: random access to the pages of a VM at rest, by block and page, wherever their bytes are stored. */
import type { AutoClosed } from './auto-closed.ts';
import type { PageRun } from './page-states.ts';
import type { RamBlock } from './ram-block.ts';

/**
 * Whether a store has a page. `zero` may also mean `absent` if the format cannot distinguish them (mapped-ram files).
 */
export type PageState = 'absent' | 'zero' | 'data';

/** RAM content by address: blocks, and their pages in their final state. */
export interface RamReader {
  readonly blocks: readonly RamBlock[];
  /** Whether a page is absent, zero or data. */
  state(block: RamBlock, page: number): PageState | Promise<PageState>;
  /** Whether a page was never sent. The method is missing if the store cannot distinguish this from zero. */
  isAbsent?(block: RamBlock, page: number): boolean;
  /** Reads whole pages into `target`, whose length is a multiple of the page size. Absent pages read as zeros. */
  read(block: RamBlock, page: number, target: Uint8Array): Promise<void>;
  /**
   * Reads data pages from `page` on, each with `room` bytes in front of it, whose content does not matter, and returns
   * how many: as many as `target` holds, or fewer. 0 if the pages do not lie like that in their source: `read` then has
   * them. The method is missing if they never do.
   */
  readSpaced?(block: RamBlock, page: number, target: Uint8Array, room: number): Promise<number>;
  /**
   * The next run of data pages at or after `page`: `[first, end)`, at most `limit` pages. If there is none, `first` is
   * the block's page count.
   */
  nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }>;
  /**
   * The runs of pages of a block that were never sent, ascending. The method is missing if the store cannot distinguish
   * them from zero.
   */
  absentRuns?(block: RamBlock): Iterable<PageRun> | AsyncIterable<PageRun>;
  /**
   * Announces that pages `[first, end)` will be read in ascending order, in one or more reads, perhaps with gaps. The
   * method is missing if that makes no difference.
   */
  willRead?(block: RamBlock, first: number, end: number): void;
  /** How many pages of a block were never sent. The method is missing if the store cannot know. */
  absentPages?(block: RamBlock): number;
  /** Releases its resources. */
  close(): Promise<void>;
}

/** Content that the library opened and the caller closes. */
export interface OpenedRam extends RamReader, AutoClosed {}
