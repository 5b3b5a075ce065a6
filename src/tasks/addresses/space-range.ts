/** A range of an address space, as `read` shows it. */
import type { MissingRam } from '../../store/missing-ram.ts';
import type { ContentPiece } from '../../store/ram-content.ts';
import { readPart } from '../extract/range.ts';
import type { AddressSpace } from './address-space.ts';
import { type BlockPlace, type BlockRange, placesWithin } from './space-reader.ts';

const defaultLength = 256;

/** A range that can be read. */
export interface SpaceRange {
  address: bigint;
  /** Bytes. */
  length: number;
  /** Where its first byte is. */
  first: BlockPlace;
  /** Where its bytes are: places in RAM blocks, in the order of their addresses. */
  places: BlockRange[];
  /** With `partial`: what the file lacks. */
  missing: MissingRam | undefined;
  /** The range in order; `bytes` undefined means zeros. A piece is valid until the next one is requested. */
  pieces(): AsyncGenerator<ContentPiece, void>;
}

/**
 * Finds a range.
 * @param length in bytes; by default 256, or fewer up to the end of the memory that is contiguous there
 * @throws RangeError if some of it is not memory
 */
export async function openSpaceRange(space: AddressSpace, address: bigint, length?: number): Promise<SpaceRange> {
  const wanted = BigInt(length ?? defaultLength);
  const { value: run } = await space.runs(address, address + (wanted === 0n ? 1n : wanted)).next();
  const start = space.normalize(address);
  if (!run || run.address > start) throw new RangeError(noMemory(space, address));
  const skipped = Number(start - run.address);
  const left = run.usedLength - skipped;
  const count = length ?? Math.min(defaultLength, left);
  if (count > left) throw new RangeError(`${noMemory(space, address + BigInt(left))}, ${left} bytes behind the first`);
  const places = [...placesWithin(run, skipped, count)];
  return {
    ...{ address, length: count, first: space.locate(run, skipped), places, missing: space.missing },
    async *pieces() {
      for (const place of places) yield* readPart(space.content, place.block, place.offset, place.length);
    },
  };
}

function noMemory({ paging }: AddressSpace, address: bigint): string {
  const at = `0x${address.toString(16)}`;
  return paging === undefined
    ? `expected a guest-physical address that is memory, got ${at}`
    : `expected a virtual address that the CPU maps to memory, got ${at}`;
}
