/** What is known of the pages of one block: a byte per page and layer, for the parts that were touched. */

import { PageKind } from '../../kernel/page-batch.ts';
import type { PairSpan } from '../../store/page-pairs.ts';
import { lastPass } from '../../tasks/inspect/page-passes.ts';
import { isBitSet } from '../../vm/bits.ts';
import { discardedState, PageStates } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { type CellMap, type Layer, type MapQuery, pageDifferences, pageStates } from '../protocol.ts';
import type { CallContext } from './calls.ts';
import { Meter } from './calls.ts';
import { countClasses, latestValues, meanValues } from './cell-map.ts';
import { type PageLookers, windowBytes } from './page-lookers.ts';

const differenceClass = (name: (typeof pageDifferences)[number]) => pageDifferences.indexOf(name);

/** Differences are kept as their class and 1; 0 is what was not looked at. */
const differenceClasses = Uint8Array.from({ length: 256 }, (_, value) =>
  value === 0 ? differenceClass('unknown') : value - 1,
);

export class BlockLayers {
  readonly block: RamBlock;
  readonly states: PageStates;
  /** Undefined: the order of pages says nothing. */
  readonly passes: PageStates | undefined;
  readonly #entropy = new PageStates();
  /** By the number of the other file. */
  readonly #differences = new Map<number, PageStates>();
  readonly #stateClasses: Uint8Array;

  constructor(block: RamBlock, states: PageStates, passes: PageStates | undefined) {
    this.block = block;
    this.states = states;
    this.passes = passes;
    this.#stateClasses = stateClasses(block);
  }

  get layers(): Layer[] {
    return ['state', 'entropy', ...(this.passes === undefined ? [] : (['pass'] as const)), 'difference'];
  }

  /** @throws RangeError for a layer that there is not, and too many cells */
  map({ layer, base = 0, first, pagesPerCell, cells }: MapQuery): CellMap {
    const range = { first, pagesPerCell, cells, pages: pageCount(this.block) };
    if (layer === 'state') return countClasses(this.states, range, this.#stateClasses, pageStates.length);
    if (layer === 'entropy') return meanValues(this.#entropy, range);
    if (layer === 'difference') {
      const states = this.#differences.get(base) ?? new PageStates();
      return countClasses(states, range, differenceClasses, pageDifferences.length);
    }
    if (this.passes === undefined)
      throw new RangeError(`${this.block.idstr}: the order of pages says nothing of passes`);
    return latestValues(this.passes, range);
  }

  facts(page: number) {
    const { block } = this;
    if (!Number.isSafeInteger(page) || page < 0 || page >= pageCount(block)) {
      throw new RangeError(`${block.idstr}: expected a page below ${pageCount(block)}, got ${page}`);
    }
    const pass = this.passes?.get(page) ?? 0;
    const entropy = this.#entropy.get(page);
    return {
      page,
      state: pageStates[this.#stateClasses[this.states.get(page)] as number] as (typeof pageStates)[number],
      pass: pass === 0 ? undefined : Math.min(pass, lastPass),
      entropy: entropy === 0 ? undefined : ((entropy - 1) / 254) * 8,
    };
  }

  /** Measures all pages with data; one read while others are looked at. */
  async measureEntropy(
    ram: RamReader,
    lookers: PageLookers,
    context: Pick<CallContext, 'signal' | 'progress'>,
  ): Promise<void> {
    const { block } = this;
    const { pageSize, usedLength } = block;
    const meter = new Meter(context, 'reading', usedLength);
    const looking = new Set<Promise<void>>();
    let failure: { error: unknown } | undefined;
    const pages = pageCount(block);
    for (let page = 0; page < pages && failure === undefined; ) {
      context.signal.throwIfAborted();
      const { first } = await ram.nextData(block, page, 1);
      if (first >= pages) break;
      // Runs may be as short as a page: what is between them is read with them, in one go.
      const count = Math.min(windowBytes / pageSize, pages - first);
      const window = await lookers.take();
      const length = count * pageSize;
      try {
        await ram.read(block, first, window.bytes.subarray(0, length));
      } catch (error) {
        window.free();
        throw error;
      }
      const work = window
        .measure(length, pageSize)
        .then((values) => {
          for (let i = 0; i < count; i++)
            if (this.#hasData(first + i)) this.#entropy.set(first + i, values[i] as number);
          meter.reach((first + count) * pageSize);
        })
        .catch((error) => {
          failure = { error };
        })
        .finally(() => looking.delete(work));
      looking.add(work);
      page = first + count;
    }
    await Promise.all(looking);
    if (failure !== undefined) throw failure.error;
  }

  #hasData(page: number): boolean {
    const state = this.states.get(page);
    return state !== PageKind.absent && state !== PageKind.zero && state !== discardedState;
  }

  /** Begins the differences to another file anew. */
  beginDifference(base: number): void {
    this.#differences.set(base, new PageStates());
  }

  forgetDifference(base: number): void {
    this.#differences.delete(base);
  }

  /** Takes in what was compared. */
  addDifference(base: number, span: PairSpan): void {
    const states = this.#differences.get(base) as PageStates;
    const same = differenceClass('same') + 1;
    if (span.isGap) {
      states.fill(span.first, span.first + span.count, same);
      return;
    }
    const { first, count, changed, oldZero, newZero } = span;
    for (let i = 0; i < count; i++) {
      const name = isBitSet(newZero, i) ? 'became-zero' : isBitSet(oldZero, i) ? 'became-data' : 'changed';
      states.set(first + i, isBitSet(changed, i) ? differenceClass(name) + 1 : same);
    }
  }

  /** What was not compared cannot be: pages from `compared` on. */
  endDifference(base: number, compared: number): void {
    this.#differences.get(base)?.fill(compared, pageCount(this.block), differenceClass('not-compared') + 1);
  }
}

/** The class of each `PageKind`. In a mapped-ram file pages without data are zero. */
function stateClasses({ mapped }: RamBlock): Uint8Array {
  const classes = new Uint8Array(256);
  const names = { absent: 'absent', zero: 'zero', data: 'data', delta: 'xbzrle', compressed: 'compressed' } as const;
  for (const [kind, name] of Object.entries(names)) {
    classes[PageKind[kind as keyof typeof names]] = pageStates.indexOf(name);
  }
  if (mapped !== undefined) classes[PageKind.absent] = pageStates.indexOf('zero');
  classes[discardedState] = pageStates.indexOf('discarded');
  return classes;
}
