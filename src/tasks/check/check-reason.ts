/** What `check` finds: reasons why a target refuses a file, or may, and what it needs. */
import type { Place } from '../../vm/migration-error.ts';

/**
 * `refused`: the target does not load the file. `doubt`: it may refuse, or load something else than was saved.
 * `needed`: it loads the file if this is seen to, which has nothing to do with the machine. `note`: a difference that does
 * no harm.
 */
export type CheckEffect = 'refused' | 'doubt' | 'needed' | 'note';

/** What is held against the target. The words are stable; the messages may improve. */
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
  /** A value that the target insists on. */
  | 'value'
  /** The configuration space of a PCI device: its ids and capabilities. */
  | 'pci-config'
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
  /** What to do about it, where that is known. */
  advice?: string;
  /** Where in the file, with the section or block. */
  place?: Place;
  /** Of the device's state: `vmsd_name` of the subsection or nested state, and the field. */
  state?: string;
  field?: string;
}

/** Reasons remembered; what is beyond is only counted. */
const maxReasons = 1000;

/** Collects reasons, each once, and what could not be judged. */
export class CheckLog {
  readonly #reasons = new Map<string, CheckReason>();
  readonly #notJudged = new Set<string>();
  omitted = 0;
  /** Sections that were held against something. */
  judgedSections = 0;

  add(reason: CheckReason): void {
    const { rule, message, place } = reason;
    const key = `${rule} ${place?.section ?? ''} ${place?.block ?? ''} ${message}`;
    if (this.#reasons.has(key)) return;
    // What refuses the file is told whatever else there is.
    if (this.#reasons.size < maxReasons || (reason.effect === 'refused' && !this.refuses)) {
      this.#reasons.set(key, reason);
    } else this.omitted++;
  }

  leaveOut(what: string): void {
    if (this.#notJudged.size < maxReasons) this.#notJudged.add(what);
  }

  get refuses(): boolean {
    return [...this.#reasons.values()].some(({ effect }) => effect === 'refused');
  }

  /** How far from loading: for choosing the best of several. */
  get weight(): number {
    const weights: Record<CheckEffect, number> = { refused: 1_000_000, doubt: 1000, needed: 1, note: 1 };
    return [...this.#reasons.values()].reduce((sum, { effect }) => sum + weights[effect], 0);
  }

  /** Takes over what another found. */
  merge(other: CheckLog): void {
    for (const reason of other.#reasons.values()) this.add(reason);
    for (const what of other.#notJudged) this.leaveOut(what);
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
