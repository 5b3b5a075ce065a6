/** Collects findings. Findings with the same code, section and block become one entry with a count. */

import {
  type Finding,
  type FindingCode,
  makeFinding,
  type Place,
  type PlaceOrigin,
  type Severity,
} from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';

/** A finding, and how often it occurred. */
export interface CountedFinding extends Finding {
  /** How many there were. `message` and `place` are those of the first one. */
  count: number;
  /** Place of the last one, if there was more than one. */
  last?: Place;
}

/** Findings about the stream as a whole: one entry for all sections. */
const ofTheStream: ReadonlySet<FindingCode> = new Set(['guessed-boundary']);

/** The most separate entries, which bounds the memory that a hostile file can use. */
const maxKinds = 1000;

/** The findings of one file. */
export class FindingLog {
  readonly #byKey = new Map<string, CountedFinding>();

  /** Adds `count` equal findings: `finding` is the first one, `last` the place of the last one. */
  add(finding: Finding, count = 1, last?: Place): void {
    const { severity, code, place } = finding;
    const about = ofTheStream.has(code) ? '' : `${place.section ?? ''} ${place.block ?? ''}`;
    let key = `${severity} ${code} ${about}`;
    if (this.#byKey.size >= maxKinds && !this.#byKey.has(key)) key = `${severity} ${code}`;
    const known = this.#byKey.get(key);
    if (known === undefined) {
      this.#byKey.set(key, last === undefined ? { ...finding, count } : { ...finding, count, last });
    } else {
      known.count += count;
      known.last = last ?? place;
    }
  }

  /** All entries: the most severe first, then in the order of appearance. */
  list(): CountedFinding[] {
    const rank: Record<Severity, number> = { error: 0, warning: 1, info: 2 };
    return [...this.#byKey.values()].sort((a, b) => rank[a.severity] - rank[b.severity]);
  }

  /** Whether there is a finding with this code. */
  has(code: FindingCode): boolean {
    return [...this.#byKey.values()].some((finding) => finding.code === code);
  }
}

/** The finding for discarded pages that were not sent again. `page` is the first of them. */
export function lostPagesFinding(origin: PlaceOrigin, block: RamBlock, page: number): Finding {
  const message = 'pages discarded at the switchover were never sent again: the preempt channel may be missing';
  return makeFinding('pages-lost', message, {
    ...origin,
    offset: 0,
    section: 'ram',
    block: block.idstr,
    page,
  });
}

/** The finding for a block of shared memory that the migration left out. */
export function ignoredFinding(place: Place, { idstr }: RamBlock): Finding {
  const message = `${idstr} is shared memory that the migration left out (x-ignore-shared)`;
  return makeFinding('block-ignored', message, { ...place, section: 'ram', block: idstr });
}
