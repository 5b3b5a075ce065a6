/** The layers of one block: a byte per page and layer. Only parts of the block that have values take memory. */

import { PageKind } from '../../kernel/page-batch.ts';
import type { PairSpan } from '../../store/page-pairs.ts';
import { lastPass } from '../../tasks/inspect/page-passes.ts';
import { isBitSet } from '../../vm/bits.ts';
import { discardedState, PageStates } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { type CellMap, type Layer, type MapQuery, pageDifferences, pageStates } from '../protocol.ts';
import { Meter, type WorkContext } from './calls.ts';
import { countClasses, latestValues, meanValues } from './cell-map.ts';
import { type PageMeasurer, windowBytes } from './page-measurer.ts';

const differenceClass = (name: (typeof pageDifferences)[number]) => pageDifferences.indexOf(name);

/** Differences are stored as their class plus 1. 0 stands for pages that were not compared yet. */
const differenceClasses = Uint8Array.from({ length: 256 }, (_, value) =>
  value === 0 ? differenceClass('unknown') : value - 1,
);

export class BlockLayers {
  readonly block: RamBlock;
  readonly states: PageStates;
  /** Undefined if the file has no passes. */
  passes: PageStates | undefined;
  readonly #entropy = new PageStates();
  /** By the number of the file that was compared. */
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

  /** @throws RangeError for a layer that the block does not have, or too many cells */
  map({ layer, base = 0, first, pagesPerCell, cells }: MapQuery): CellMap {
    const range = { first, pagesPerCell, cells, pages: pageCount(this.block) };
    if (layer === 'state') return countClasses(this.states, range, this.#stateClasses, pageStates.length);
    if (layer === 'entropy') return meanValues(this.#entropy, range);
    if (layer === 'difference') {
      const states = this.#differences.get(base) ?? new PageStates();
      return countClasses(states, range, differenceClasses, pageDifferences.length);
    }
    if (this.passes === undefined) throw new RangeError(`${this.block.idstr}: the file has no passes`);
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

  /** Measures all pages with data. Pages are read while others are measured. */
  async measureEntropy(ram: RamReader, measurer: PageMeasurer, context: WorkContext): Promise<void> {
    const { block } = this;
    const { pageSize, usedLength } = block;
    const meter = new Meter(context, 'reading', usedLength);
    const measuring = new Set<Promise<void>>();
    let failure: { error: unknown } | undefined;
    const pages = pageCount(block);
    for (let page = 0; page < pages && failure === undefined; ) {
      context.signal.throwIfAborted();
      const { first } = await ram.nextData(block, page, 1);
      if (first >= pages) break;
      // Runs of data can be as short as a page. One read of a whole window is faster than many small ones.
      const count = Math.min(windowBytes / pageSize, pages - first);
      const window = await measurer.take();
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
        .finally(() => measuring.delete(work));
      measuring.add(work);
      page = first + count;
    }
    await Promise.all(measuring);
    if (failure !== undefined) throw failure.error;
  }

  #hasData(page: number): boolean {
    const state = this.states.get(page);
    return state !== PageKind.absent && state !== PageKind.zero && state !== discardedState;
  }

  /** Starts the comparison with a file over. */
  beginDifference(base: number): void {
    this.#differences.set(base, new PageStates());
  }

  forgetDifference(base: number): void {
    this.#differences.delete(base);
  }

  /** Stores the result of comparing some pages. */
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

  /** Ends the comparison. Pages from `compared` on could not be compared. */
  endDifference(base: number, compared: number): void {
    this.#differences.get(base)?.fill(compared, pageCount(this.block), differenceClass('not-compared') + 1);
  }
}

/** The class of each `PageKind`. In a mapped-ram file, pages without data are zero. */
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
