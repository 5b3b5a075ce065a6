/**
 * Everything that the command line writes to standard error. Each line has one prefix: `vmferry: error:`,
 * `vmferry: warning:`, `vmferry: note:` or `vmferry: hint:`. With --quiet only errors and their hints remain. With
 * --json an error is one line of JSON, the last line on standard error.
 */
import { CommanderError } from 'commander';
import { fileError } from '../io/node/file-error.ts';
import { type ErrorJson, jsonVersion } from '../tasks/json.ts';
import { incompleteCodes, MigrationError } from '../vm/migration-error.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { hintOf } from './hints.ts';
import { painter, printable } from './print/format.ts';

/** How the running command reports. */
export interface Manner {
  quiet: boolean;
  json: boolean;
  /** It has the option --partial, which was not given. */
  couldBePartial: boolean;
}

const manner: Manner = { quiet: false, json: false, couldBePartial: false };

export function setManner(of: Manner): void {
  Object.assign(manner, of);
}

export const isQuiet = (): boolean => manner.quiet;

const colours = { error: 'red', warning: 'yellow', note: 'dim', hint: 'dim' } as const;

function say(kind: keyof typeof colours, text: string): void {
  const paint = painter(process.stderr);
  process.stderr.write(`${paint(colours[kind], `vmferry: ${kind}:`)} ${printable(text)}\n`);
}

/** Reports something about the result that the user should know. */
export function warn(text: string): void {
  if (!manner.quiet) say('warning', text);
}

/** Reports something about how the command went. */
export function note(text: string): void {
  if (!manner.quiet) say('note', text);
}

/** The exit code that an error deserves. */
function exitCodeOf(error: unknown): number {
  return error instanceof MigrationError ? ExitCode.badInput : ExitCode.trouble;
}

/** Prints an error and its hint. */
export function reportError(thrown: unknown, exitCode = exitCodeOf(thrown)): number {
  const error = fileError(thrown);
  const { message, code, hint, place } = describeError(error);
  if (manner.json) {
    const facts = {
      ...{ message, code, exitCode },
      ...(place === undefined ? {} : { place }),
      ...(hint === undefined ? {} : { hint }),
    };
    process.stderr.write(`${JSON.stringify({ error: facts, jsonVersion } satisfies ErrorJson)}\n`);
    return exitCode;
  }
  say('error', message);
  if (hint !== undefined) say('hint', hint);
  if (code === 'internal' && error instanceof Error && error.stack !== undefined) {
    process.stderr.write(`${error.stack}\n`);
  }
  return exitCode;
}

const takePartial = 'take what the file has with --partial';

type ErrorFacts = Pick<ErrorJson['error'], 'message' | 'code' | 'hint' | 'place'>;

function describeError(error: unknown): ErrorFacts {
  const known = hintOf((error ?? {}) as { code?: unknown });
  const isIncomplete = error instanceof MigrationError && incompleteCodes.has(error.code);
  const hint = isIncomplete && manner.couldBePartial ? [known, takePartial].filter(Boolean).join('; or ') : known;
  const facts = hint === undefined ? {} : { hint };
  if (error instanceof MigrationError) {
    return { message: error.message, code: error.code, place: error.place, ...facts };
  }
  if (error instanceof CommanderError) {
    const message = error.message
      .replace(/^error: /, '')
      .trim()
      .replace(/\s*\n\s*/g, ' ');
    return { message, code: 'usage' };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof UsageError || error instanceof RangeError) return { message, code: 'usage', ...facts };
  const code = (error as { code?: unknown } | undefined)?.code;
  return { message, code: typeof code === 'string' ? code : 'internal', ...facts };
}
