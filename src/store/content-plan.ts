/**
 * The plan for reading a file's content: a value that can be printed and tested. `ram-content.ts` and the tasks carry
 * it out.
 */
import type { MigrationFile } from '../read/open.ts';

/** How content is read, and why. Plain data that can be written as JSON. */
export type ContentPlan =
  /** Each page is read from its place in the mapped-ram file. */
  | { how: 'in-place'; reason: string }
  /**
   * One pass over the stream makes an index of the places of pages and XBZRLE deltas, and pages are read from there. If a page
   * is compressed, the content goes to a scratch file instead.
   */
  | { how: 'index'; reason: string; otherwise: 'scratch' }
  /** The Flow is settled into a scratch file, and pages are read from that file. */
  | { how: 'scratch'; reason: string }
  /** The Flow is read to its end, and the requested pages are kept in memory. */
  | { how: 'memory'; reason: string }
  /** The Flow is settled into the output itself. */
  | { how: 'output'; reason: string };

/** What the content is needed for. */
export interface PlanOptions {
  /** The output has a place for each page, and takes pages in any order. Default false. */
  toOutput?: boolean;
  /** Length of the only range that is needed, in bytes. Default: whole blocks. */
  rangeBytes?: number;
}

/** Ranges of up to this many bytes are kept in memory. */
const maxMemoryBytes = 16 << 20;

/**
 * Plans how the content of a file is read, without reading anything.
 *
 * @example
 * planContent(await open('guest.mapped-ram'));
 * // { how: 'in-place', reason: 'a mapped-ram file has each page at its place' }
 */
export function planContent(
  file: Pick<MigrationFile, 'format' | 'isSeekable' | 'parts'> & Partial<Pick<MigrationFile, 'isRemote'>>,
  { toOutput = false, rangeBytes }: PlanOptions = {},
): ContentPlan {
  if (toOutput) return { how: 'output', reason: 'the output takes pages in the order of the input' };
  if (file.format === 'mapped-ram' && file.isSeekable) {
    return { how: 'in-place', reason: 'a mapped-ram file has each page at its place' };
  }
  if (rangeBytes !== undefined) {
    const limit = `${maxMemoryBytes >> 20} MiB`;
    return rangeBytes <= maxMemoryBytes
      ? { how: 'memory', reason: `the range has at most ${limit}` }
      : { how: 'scratch', reason: `the range has more than ${limit}` };
  }
  if (!file.isSeekable) {
    return { how: 'scratch', reason: 'the input can be read only once: it is a pipe, or compressed' };
  }
  if (file.isRemote === true) return { how: 'scratch', reason: 'the input is on a server, and is fetched only once' };
  const { channels, resumeOf, preempt } = file.parts;
  if (resumeOf.length + preempt.length > 0) return { how: 'scratch', reason: 'the pages are in several files' };
  const reason =
    channels.length > 0
      ? 'multifd channels may have each page as a whole page'
      : 'a stream may have each page as a whole page';
  return { how: 'index', reason, otherwise: 'scratch' };
}
