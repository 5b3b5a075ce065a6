/**
 * In which pass each page came last: a byte per page that came, gathered while a Flow passes by. Where the order of pages
 * says nothing (`Inspection.ram.passes` is null) the numbers mean nothing, too.
 */
import type { FlowItem } from '../../vm/flow.ts';
import { PageStates } from '../../vm/page-states.ts';

/** A page that came last in this pass or in a later one. */
export const lastPass = 254;

/** Says for each page in which pass it was last sent. */
export class PagePasses {
  /** By the blocks' numbers: the pass of each page, from 1; 0: the page never came. */
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
