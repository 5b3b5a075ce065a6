/** Collects findings; like ones (same code, section and block) are squashed into one with a count. */

import {
  type Finding,
  type FindingCode,
  makeFinding,
  type Place,
  type PlaceOrigin,
  type Severity,
} from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';

export interface CountedFinding extends Finding {
  /** How many there were. `message` and `place` are those of the first. */
  count: number;
  /** Place of the last one, if there was more than one. */
  last?: Place;
}

/** Findings that follow from what the stream is: they are squashed whichever section they are about. */
const ofTheStream: ReadonlySet<FindingCode> = new Set(['guessed-boundary']);

/** Kinds of findings kept apart; a hostile file cannot make this grow. */
const maxKinds = 1000;

export class FindingLog {
  readonly #byKey = new Map<string, CountedFinding>();

  /** Adds `count` like findings: `finding` is the first, and `last` the place of the last. */
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

  /** Worst first, otherwise in order of appearance. */
  list(): CountedFinding[] {
    const rank: Record<Severity, number> = { error: 0, warning: 1, info: 2 };
    return [...this.#byKey.values()].sort((a, b) => rank[a.severity] - rank[b.severity]);
  }

  has(code: FindingCode): boolean {
    return [...this.#byKey.values()].some((finding) => finding.code === code);
  }

  get hasErrors(): boolean {
    return [...this.#byKey.values()].some(({ severity }) => severity === 'error');
  }
}

/** Pages that were discarded and did not come again, of which `page` is the first. */
export function lostPagesFinding(origin: PlaceOrigin, block: RamBlock, page: number): Finding {
  const message = 'pages discarded at the switchover never came again: the preempt channel may be missing';
  return makeFinding('pages-lost', message, {
    ...origin,
    offset: 0,
    section: 'ram',
    block: block.idstr,
    page,
  });
}
