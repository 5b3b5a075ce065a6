/**
 * The pass in which each page was last sent: a byte per sent page, collected during a reading. The numbers are meaningless if
 * the order of pages is (`Inspection.ram.passes` is undefined).
 */
import type { FlowItem } from '../../vm/flow.ts';
import { PageStates } from '../../vm/page-states.ts';

/** The last pass with its own number. It stands for all later ones. */
export const lastPass = 254;

/** Records the pass in which each page was last sent. */
export class PagePasses {
  /** For each block by number: the pass of each page, from 1; 0 if the page was never sent. */
  readonly blocks: PageStates[] = [];
  #pass = 1;

  /** Takes the next item of a Flow. */
  take(item: FlowItem): void {
    if (item.kind === 'block') this.blocks.push(new PageStates());
    else if (item.kind === 'pass-end') this.#pass = Math.min(lastPass, this.#pass + 1);
    else if (item.kind === 'pages') {
      const { batch } = item;
      const passes = this.blocks[item.block.index] as PageStates;
      for (let i = 0; i < batch.count; i++) passes.set(batch.page[i] as number, this.#pass);
    }
  }
}
