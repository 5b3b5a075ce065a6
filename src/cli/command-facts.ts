/** What a command says about itself apart from its arguments and options. */
import type { ExitCodes } from './exit-codes.ts';

/** A paragraph, or a table whose first row is the head. */
export type Note = string | { table: readonly (readonly string[])[] };

/** One shape that a command prints as JSON: a type that the package exports, and when it is printed. */
interface JsonOutput {
  type: string;
  when: string;
}

/**
 * Which options go together, by their long flags. An option that the mode asked for cannot use is refused, never dropped
 * silently.
 */
interface OptionRules {
  /** At most one of each group. */
  oneOf?: readonly (readonly string[])[];
  /** An option, and the options it needs: at least one of them. */
  needs?: Readonly<Record<string, readonly string[]>>;
  /** An option, and those that it cannot be used with. */
  excludes?: Readonly<Record<string, readonly string[]>>;
  /**
   * What depends on arguments and values.
   * @throws UsageError
   */
  check?(args: readonly string[], options: never, isGiven: (flag: string) => boolean): void;
}

export interface CommandFacts {
  /** What else there is to know. */
  notes: readonly Note[];
  /** Exit codes that are not the common ones, or mean something else. */
  exitCodes: ExitCodes;
  json: readonly JsonOutput[];
  examples: readonly string[];
  rules: OptionRules;
}

/** `a, b or c`. */
export function list(words: readonly string[], last: string): string {
  return words.join(', ').replace(/, ([^,]*)$/, ` ${last} $1`);
}
