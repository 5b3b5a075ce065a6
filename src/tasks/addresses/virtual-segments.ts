/** The virtual memory of all CPUs as segments of a core file: each is contiguous at both sides, and lies in one range of RAM. */
import type { Abortable } from '../../io/abort.ts';
import { addressOf, maxTablesOf, unitBytes, walkTables } from './page-tables.ts';
import type { Paging } from './paging.ts';
import type { PhysicalRam } from './physical-ram.ts';

/** Virtual memory that is guest-physical memory. */
export interface VirtualSegment {
  virtual: bigint;
  /** Guest-physical address. */
  physical: number;
  /** Bytes. */
  length: number;
}

/** The most segments: a core file of scattered memory has to be opened by something. */
const maxSegments = 1 << 20;

/** More segments than a core file takes. */
export class TooManySegments extends Error {}

/**
 * The segments, ascending by their guest-physical addresses. An address that several CPUs have is that of the first of them.
 * @throws EndlessTables, TooManySegments
 */
export async function virtualSegments(
  memory: PhysicalRam,
  pagings: readonly Paging[],
  options: Abortable = {},
): Promise<VirtualSegment[]> {
  let taken: VirtualSegment[] = [];
  for (const { tables } of pagings) {
    const found: VirtualSegment[] = [];
    for (const tree of tables) {
      const read = (address: number, length: number) => memory.view(address, length);
      const walk = walkTables(tree, read, { ...options, maxTables: maxTablesOf(memory.bytes) });
      for await (const { unit, physical, units } of walk) {
        const virtual = addressOf(tree, unit);
        for (const { start, length } of memory.parts(physical, units * unitBytes)) {
          found.push({ virtual: virtual + BigInt(start - physical), physical: start, length });
        }
        if (found.length > maxSegments)
          throw new TooManySegments(`the page tables have more than ${maxSegments} segments`);
      }
    }
    const free = taken.length === 0 ? found : [...freeParts(found, taken)];
    taken = [...taken, ...free].sort((a, b) => (a.virtual < b.virtual ? -1 : 1));
  }
  return taken.sort((a, b) => a.physical - b.physical || (a.virtual < b.virtual ? 1 : -1));
}

const endOf = ({ virtual, length }: VirtualSegment): bigint => virtual + BigInt(length);

/** What others leave free of segments. Both are ascending by their virtual addresses. */
function* freeParts(
  segments: readonly VirtualSegment[],
  taken: readonly VirtualSegment[],
): Generator<VirtualSegment, void> {
  let at = 0;
  for (const segment of segments) {
    const part = (from: bigint, to: bigint): VirtualSegment => ({
      virtual: from,
      physical: segment.physical + Number(from - segment.virtual),
      length: Number(to - from),
    });
    const end = endOf(segment);
    let from = segment.virtual;
    while (at < taken.length && endOf(taken[at] as VirtualSegment) <= from) at++;
    for (let i = at; i < taken.length && from < end; i++) {
      const next = taken[i] as VirtualSegment;
      if (next.virtual >= end) break;
      if (next.virtual > from) yield part(from, next.virtual);
      if (endOf(next) > from) from = endOf(next);
    }
    if (from < end) yield part(from, end);
  }
}
