/** Results of `check`: reasons why a target refuses a file or may refuse it, and what it needs. */
import type { Place } from '../../vm/migration-error.ts';

/**
 * `refused`: the target does not load the file. `doubt`: it may refuse, or load something else than was saved.
 * `needed`: it loads the file if this is done, which does not depend on the machine. `note`: a harmless difference.
 */
export type CheckEffect = 'refused' | 'doubt' | 'needed' | 'note';

/** What is compared with the target. These words are stable; the messages may improve. */
export type CheckRule =
  /** The machine type. */
  | 'machine'
  /** The configuration section as a whole, and the guest's UUID. */
  | 'configuration'
  | 'capability'
  | 'page-size'
  | 'footers'
  /** A RAM block that is missing, or of another size. */
  | 'ram-block'
  /** A device or iterable that the target does not have. */
  | 'section'
  | 'section-version'
  | 'subsection'
  | 'field'
  /** A value that the target requires. */
  | 'value'
  /** The configuration space of a PCI device: its ids and capabilities. */
  | 'pci-config'
  /** Feature bits that the guest uses, and that the target's virtio device must offer. */
  | 'virtio-features'
  | 'command'
  /** How pages are sent: `compress`, multifd. */
  | 'pages'
  /** The file is bad: no target loads it. */
  | 'file';

/** A reason why a file may not load. */
export interface CheckReason {
  effect: CheckEffect;
  rule: CheckRule;
  message: string;
  /** What to do about it, if known. */
  advice?: string;
  /** With `needed`: what must hold, as a clause about the target (`it has the capability mapped-ram`). */
  condition?: string;
  /** Where in the file, with the section or block. */
  place?: Place;
  /** Of the device's state: `vmsd_name` of the subsection or nested state, and the field. */
  state?: string;
  field?: string;
}

/** What must hold for something that was not compared, or else the target refuses. */
type Unseen = 'fields' | 'subsections' | 'states' | 'registers';

/** The most reasons that are kept; more are only counted. */
const maxReasons = 1000;

/** Collects reasons, each once, and what could not be judged. */
export class CheckLog {
  readonly #reasons = new Map<string, CheckReason>();
  readonly #notJudged = new Set<string>();
  readonly #unseen = new Map<Unseen, Set<string>>();
  omitted = 0;
  /** Sections that were compared. */
  judgedSections = 0;

  add(reason: CheckReason): void {
    const { rule, message, place } = reason;
    const key = `${rule} ${place?.section ?? ''} ${place?.block ?? ''} ${message}`;
    if (this.#reasons.has(key)) return;
    // The first refusal is always kept.
    if (this.#reasons.size < maxReasons || (reason.effect === 'refused' && !this.refuses)) {
      this.#reasons.set(key, reason);
    } else this.omitted++;
  }

  leaveOut(what: string): void {
    if (this.#notJudged.size < maxReasons) this.#notJudged.add(what);
  }

  /** Says that the target could refuse something that was not compared. `name`: of the section or state. */
  demand(what: Unseen, name: string): void {
    const names = this.#unseen.get(what) ?? new Set();
    this.#unseen.set(what, names);
    if (names.size < maxReasons) names.add(name);
  }

  /** What must hold, as clauses about the target. */
  get conditions(): string[] {
    const ofReasons = this.reasons.flatMap(({ effect, condition }) =>
      effect !== 'needed' || condition === undefined ? [] : [condition],
    );
    const ofUnseen = [...this.#unseen].map(([what, names]) => clauses[what](listed([...names])));
    return [...new Set([...ofReasons, ...ofUnseen])];
  }

  get refuses(): boolean {
    return [...this.#reasons.values()].some(({ effect }) => effect === 'refused');
  }

  /** Whether nothing speaks against loading. */
  get isClean(): boolean {
    return [...this.#reasons.values()].every(({ effect }) => effect === 'note' || effect === 'needed');
  }

  /** How far the file is from loading, to choose the best of several comparisons. */
  get weight(): number {
    const weights: Record<CheckEffect, number> = { refused: 1_000_000, doubt: 1000, needed: 1, note: 1 };
    return [...this.#reasons.values()].reduce((sum, { effect }) => sum + weights[effect], 0);
  }

  /** Adds the reasons of another log. */
  merge(other: CheckLog): void {
    for (const reason of other.#reasons.values()) this.add(reason);
    for (const what of other.#notJudged) this.leaveOut(what);
    for (const [what, names] of other.#unseen) for (const name of names) this.demand(what, name);
    this.omitted += other.omitted;
  }

  /** Worst first, otherwise in order of appearance. */
  get reasons(): CheckReason[] {
    const rank: Record<CheckEffect, number> = { refused: 0, doubt: 1, needed: 2, note: 3 };
    return [...this.#reasons.values()].sort((a, b) => rank[a.effect] - rank[b.effect]);
  }

  get notJudged(): string[] {
    return [...this.#notJudged];
  }
}

const clauses: Record<Unseen, (names: string) => string> = {
  fields: (names) => `its fields of ${names} are the same`,
  subsections: (names) => `it knows the subsection ${names}`,
  states: (names) => `it has the state ${names}`,
  registers: (names) => `its CPUs have the registers listed in ${names}`,
};

/** The most names in a clause. */
const maxNames = 4;

function listed(names: readonly string[]): string {
  const shown = names.slice(0, maxNames);
  const left = names.length - shown.length;
  return left === 0 ? shown.join(', ') : `${shown.join(', ')} and ${left} more`;
}
