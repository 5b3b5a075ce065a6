/** Collects findings; like ones (same code and block) are squashed into one with a count. */
import type { Finding, FindingCode, Place, Severity } from '../wire/migration-error.ts';

export interface CountedFinding extends Finding {
  /** How many there were. `message` and `place` are those of the first. */
  count: number;
  /** Place of the last one, if there was more than one. */
  last?: Place;
}

/** Kinds of findings kept apart; a hostile file cannot make this grow. */
const maxKinds = 1000;

export class FindingLog {
  readonly #byKey = new Map<string, CountedFinding>();

  add(finding: Finding, count = 1): void {
    const { severity, code, place } = finding;
    let key = `${severity} ${code} ${place.block ?? ''}`;
    if (this.#byKey.size >= maxKinds && !this.#byKey.has(key)) key = `${severity} ${code}`;
    const known = this.#byKey.get(key);
    if (known === undefined) {
      this.#byKey.set(key, { ...finding, count });
    } else {
      known.count += count;
      known.last = place;
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
