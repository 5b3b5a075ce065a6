/**
 * Counts what comes in, for progress. A destination is not told what its source has still to send, so it estimates:
 *
 *     pass 1   all of RAM comes once                     remaining = what has not come
 *     pass 2   what was dirtied while pass 1 was sent    dirty rate = pages of pass 2 / time of pass 1, at its end
 *     pass n   what was dirtied while pass n - 1 was     remaining = dirty rate x time of pass n - 1, less what has come
 */
import type { Clock } from '../io/clock.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { FlowChannels } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import type { RamCounts } from './progress.ts';

export class ReceivedCounts {
  /** Deltas. */
  xbzrlePages = 0;
  readonly #clock: Clock;
  #normal = 0;
  #duplicate = 0;
  #passes = 1;
  #total: number | undefined;
  #pageSize = 4096;
  /** Pages of this pass. */
  #ofPass = 0;
  /** When this pass began, and how long the one before it took, in ms. */
  #passStart = 0;
  #latestMs = 0;
  /** Pages per second that the source's guest dirtied. Undefined until a second pass has ended. */
  #dirtyRate: number | undefined;
  /** The last page has come. */
  #isOver = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `marksEndPasses`: a mark for multifd channels stands between two passes, not at the end of each section. */
  take(item: FlowItem, marksEndPasses = false): void {
    switch (item.kind) {
      case 'block':
        this.#pageSize = item.block.pageSize;
        break;
      case 'blocks-end':
        this.#total = item.totalBytes;
        this.#passStart = this.#clock.now();
        break;
      case 'pages':
        this.#count(item.batch);
        break;
      case 'pass-end':
        this.#endPass();
        break;
      case 'section-end':
        if (item.section.name === 'ram' && item.section.kind === 'end') this.#isOver = true;
        break;
      case 'sync':
        // Before the first pass, and before the end, there is a mark without pages.
        if (marksEndPasses && item.channels > 0 && this.#ofPass > 0) this.#endPass();
        break;
      default:
    }
  }

  #endPass(): void {
    const now = this.#clock.now();
    if (this.#passes > 1 && this.#latestMs > 0) this.#dirtyRate = (this.#ofPass * 1000) / this.#latestMs;
    this.#latestMs = now - this.#passStart;
    this.#passStart = now;
    this.#passes++;
    this.#ofPass = 0;
  }

  #count({ count, kind }: PageBatch): void {
    this.#ofPass += count;
    for (let i = 0; i < count; i++) {
      if (kind[i] === PageKind.zero) this.#duplicate++;
      else if (kind[i] === PageKind.delta) this.xbzrlePages++;
      else this.#normal++;
    }
  }

  /** Bytes of pages that have not come. 0 while nothing is known about them. */
  #remaining(total: number): number {
    if (this.#isOver) return 0;
    const sent = this.#ofPass * this.#pageSize;
    if (this.#passes === 1) return Math.max(0, total - sent);
    const dirtied = ((this.#dirtyRate ?? 0) * this.#latestMs) / 1000;
    return Math.max(0, Math.min(total, Math.round(dirtied) * this.#pageSize) - sent);
  }

  /** What was counted, with the bytes that were read. Undefined until the blocks are known. */
  now(transferred: number, channels: FlowChannels): RamCounts | undefined {
    if (this.#total === undefined) return undefined;
    return {
      transferred,
      remaining: this.#remaining(this.#total),
      total: this.#total,
      duplicate: this.#duplicate,
      normal: this.#normal,
      'page-size': this.#pageSize,
      'dirty-sync-count': this.#passes,
      'multifd-bytes': channels.list.reduce((sum, { bytes }) => sum + bytes, 0),
      ...(this.#dirtyRate === undefined ? {} : { 'dirty-pages-rate': Math.round(this.#dirtyRate) }),
    };
  }
}
