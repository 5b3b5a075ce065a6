/** Searches memory by address: matches lie in contiguous addresses, and can cross pages that are apart in RAM. */

import type { Abortable } from '../../io/abort.ts';
import { abortableRam } from '../../store/abortable-ram.ts';
import type { SearchPattern } from '../search/pattern.ts';
import { type Match, type MatchOptions, Searcher } from '../search/search.ts';
import type { AddressSpace } from './address-space.ts';
import { type BlockPlace, placesWithin, type SpaceRun } from './space-reader.ts';

/** A match by its address. */
export interface AddressMatch extends Pick<Match, 'bytes' | 'pattern' | 'before' | 'after'> {
  address: bigint;
  /** Where its first byte is in the RAM blocks. */
  place: BlockPlace;
}

/** Finds patterns, in the order of their addresses. Memory that a partial file lacks is not searched. */
export async function* searchSpace(
  space: AddressSpace,
  patterns: SearchPattern | readonly SearchPattern[],
  options: MatchOptions & Abortable = {},
): AsyncGenerator<AddressMatch, void> {
  const searcher = await Searcher.make(patterns, options);
  const ram = abortableRam(space.ram, options);
  for await (const run of space.runs()) {
    for await (const matches of searcher.search(ram, run)) {
      for (const { offset, ...match } of matches) {
        if (isMissing(space, run, offset, match.bytes.length)) continue;
        yield { ...match, address: run.address + BigInt(offset), place: space.locate(run, offset) };
      }
    }
  }
}

function isMissing({ missing }: AddressSpace, run: SpaceRun, from: number, length: number): boolean {
  if (missing === undefined) return false;
  for (const { block, offset, length: bytes } of placesWithin(run, from, length)) {
    if (missing.hasAny(block, Math.floor(offset / block.pageSize), Math.ceil((offset + bytes) / block.pageSize)))
      return true;
  }
  return false;
}
