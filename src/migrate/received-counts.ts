/** Counts what comes in, for progress. */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { FlowChannels } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import type { RamCounts } from './progress.ts';

export class ReceivedCounts {
  /** Deltas. */
  xbzrlePages = 0;
  #normal = 0;
  #duplicate = 0;
  #passes = 1;
  #total: number | undefined;
  #pageSize = 4096;
  /** Pages of this pass. */
  #ofPass = 0;

  take(item: FlowItem): void {
    switch (item.kind) {
      case 'block':
        this.#pageSize = item.block.pageSize;
        break;
      case 'blocks-end':
        this.#total = item.totalBytes;
        break;
      case 'pages':
        this.#count(item.batch);
        break;
      case 'pass-end':
        this.#passes++;
        this.#ofPass = 0;
        break;
      default:
    }
  }

  #count({ count, kind }: PageBatch): void {
    this.#ofPass += count;
    for (let i = 0; i < count; i++) {
      if (kind[i] === PageKind.zero) this.#duplicate++;
      else if (kind[i] === PageKind.delta) this.xbzrlePages++;
      else this.#normal++;
    }
  }

  /** What was counted, with the bytes that were read. Undefined until the blocks are known. */
  now(transferred: number, channels: FlowChannels): RamCounts | undefined {
    if (this.#total === undefined) return undefined;
    return {
      transferred,
      // A destination does not know what the source has still to send. In the first pass it is what has not come.
      remaining: this.#passes === 1 ? Math.max(0, this.#total - this.#ofPass * this.#pageSize) : 0,
      total: this.#total,
      duplicate: this.#duplicate,
      normal: this.#normal,
      'page-size': this.#pageSize,
      'dirty-sync-count': this.#passes,
      'multifd-bytes': channels.list.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  }
}
