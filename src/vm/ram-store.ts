/** RamReader: random access to the pages of a VM at rest by (block, page), wherever their bytes are kept. */
import type { AutoClosed } from './auto-closed.ts';
import type { RamBlock } from './ram-block.ts';

/** Whether a store has a page. `zero` may stand for `absent` where a format cannot tell (mapped-ram files). */
export type PageState = 'absent' | 'zero' | 'data';

/** RAM content by address: blocks and their pages in their final state. */
export interface RamReader {
  readonly blocks: readonly RamBlock[];
  /** What a page is: absent, zero or data. */
  state(block: RamBlock, page: number): PageState | Promise<PageState>;
  /** Whether a page was never sent. Only where that can be told from zero: otherwise there is no such method. */
  isAbsent?(block: RamBlock, page: number): boolean;
  /** Reads whole pages into `target`, whose length is a multiple of the page size. Absent pages read as zeros. */
  read(block: RamBlock, page: number, target: Uint8Array): Promise<void>;
  /**
   * The next run of data pages at or after `page`: `[first, end)`, at most `limit` pages long.
   * `first` is the block's page count when there is none.
   */
  nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }>;
  /** How many pages of a block were never sent; not there where that cannot be told. */
  absentPages?(block: RamBlock): number;
  /** Releases what the content holds. */
  close(): Promise<void>;
}

/** Content that was opened here, for its caller to close. */
export interface OpenedRam extends RamReader, AutoClosed {}
