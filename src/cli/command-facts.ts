/** The facts of a command apart from its arguments and options. */
import type { ExitCodes } from './exit-codes.ts';

/** A paragraph, or a table whose first row is the head. */
export type Note = string | { table: readonly (readonly string[])[] };

/** One shape that a command prints as JSON: a type that the package exports, and when it is printed. */
interface JsonOutput {
  type: string;
  when: string;
}

/**
 * Rules for combining options, by their long flags. An option that the chosen mode cannot use is refused, never
 * silently dropped.
 */
interface OptionRules {
  /** Groups of which at most one option may be given. */
  oneOf?: readonly (readonly string[])[];
  /** Options, each with those that it needs: at least one of them. */
  needs?: Readonly<Record<string, readonly string[]>>;
  /** Options, each with those that it cannot be combined with. */
  excludes?: Readonly<Record<string, readonly string[]>>;
  /**
   * Checks rules that depend on arguments and values.
   * @throws UsageError
   */
  check?(args: readonly string[], options: never, isGiven: (flag: string) => boolean): void;
}

export interface CommandFacts {
  /** Further notes for users. */
  notes: readonly Note[];
  /** Exit codes that are not the common ones, or have another meaning. */
  exitCodes: ExitCodes;
  json: readonly JsonOutput[];
  examples: readonly string[];
  rules: OptionRules;
}

/** `a, b or c`. */
export function list(words: readonly string[], last: string): string {
  return words.join(', ').replace(/, ([^,]*)$/, ` ${last} $1`);
}
