/** The pages of a block that have one of some states, as a bitmap: one bit per page, LSB first, in whole 64-bit words. */
import { PageKind } from '../kernel/page-batch.ts';
import { discardedState, type PageStates } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';

/** What is known of the pages of a block. A page that is in none of the bitmaps was never sent. */
export interface PageBits {
  data: Uint8Array;
  zero: Uint8Array;
  /** Discarded when postcopy began, and not sent again. */
  discarded: Uint8Array;
}

/** Bytes of a bitmap of a block. */
export const bitmapBytes = (block: RamBlock): number => Math.ceil(pageCount(block) / 64) * 8;

/** A bitmap of a whole block. */
export function bitsOf(block: RamBlock, states: PageStates, isWanted: (state: number) => boolean): Uint8Array {
  const bits = new Uint8Array(bitmapBytes(block));
  markPages(bits, states, [0, pageCount(block)], isWanted);
  return bits;
}

/** Sets the bits of the pages from `firstPage` to `end` whose state is wanted. The first bit is that of `firstPage`. */
export function markPages(
  bits: Uint8Array,
  all: PageStates,
  [firstPage, end]: readonly [number, number],
  isWanted: (state: number) => boolean,
): void {
  for (const { first, end: stop, states, state } of all.pieces(firstPage, end)) {
    if (states === undefined && !isWanted(state)) continue;
    for (let page = first; page < stop; page++) {
      if (states !== undefined && !isWanted(states[page - first] as number)) continue;
      const bit = page - firstPage;
      bits[bit >> 3] = (bits[bit >> 3] as number) | (1 << (bit & 7));
    }
  }
}

/** What is known of the pages of a block. */
export const pageBitsOf = (block: RamBlock, states: PageStates): PageBits => ({
  data: bitsOf(block, states, (state) => state === PageKind.data),
  zero: bitsOf(block, states, (state) => state === PageKind.zero),
  discarded: bitsOf(block, states, (state) => state === discardedState),
});

/** Sets the states of pages that {@link pageBitsOf} has noted. */
export function setStates(block: RamBlock, states: PageStates, { data, zero, discarded }: PageBits): void {
  const pages = pageCount(block);
  for (const [bits, state] of [
    [data, PageKind.data],
    [zero, PageKind.zero],
    [discarded, discardedState],
  ] as const) {
    const has = (page: number) => (((bits[page >> 3] as number) >> (page & 7)) & 1) === 1;
    for (let first = 0; first < pages; first++) {
      if ((first & 7) === 0 && bits[first >> 3] === 0) {
        first += 7;
        continue;
      }
      if (!has(first)) continue;
      let end = first + 1;
      while (end < pages && has(end)) end++;
      states.setRun(first, end - first, state);
      first = end;
    }
  }
}
