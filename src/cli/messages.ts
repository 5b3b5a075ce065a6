/**
 * Everything that the command line writes to standard error. Each line has one prefix: `vmferry: error:`,
 * `vmferry: warning:`, `vmferry: note:`, `vmferry: hint:` or `vmferry: guest:`. With --quiet only errors, their hints, where the
 * guest is, and the answer to a Ctrl-C remain. With
 * --json an error is one line of JSON, the last line on standard error.
 */
import { CommanderError } from 'commander';
import { PeerError } from '../io/connection.ts';
import { fileError } from '../io/node/file-error.ts';
import { LiveError } from '../migrate/live-error.ts';
import { type ErrorJson, jsonVersion } from '../tasks/json.ts';
import { incompleteCodes, MigrationError } from '../vm/migration-error.ts';
import { ExitCode, Interrupted, UsageError } from './exit-codes.ts';
import { hintOf } from './hints.ts';
import { painter, printable } from './print/format.ts';

/** How the running command reports. */
export interface Manner {
  quiet: boolean;
  json: boolean;
  /** It has the option --partial, which was not given. */
  couldBePartial: boolean;
  /** It is a live command: an error says where the guest is. */
  isLive: boolean;
}

const manner: Manner = { quiet: false, json: false, couldBePartial: false, isLive: false };

export function setManner(of: Manner): void {
  Object.assign(manner, of);
}

export const isQuiet = (): boolean => manner.quiet;

const colours = { error: 'red', warning: 'yellow', note: 'dim', hint: 'dim', guest: 'yellow' } as const;

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

/** Reports what the user must know, also with --quiet. */
export function insist(text: string): void {
  say('warning', text);
}

/** The exit code that an error deserves. */
function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode;
  if (error instanceof LiveError) return liveExitCodeOf(error.cause);
  if (error instanceof PeerError) return ExitCode.peer;
  return error instanceof MigrationError ? ExitCode.badInput : ExitCode.trouble;
}

/** A live stream that ends too early, or whose channel has not come, is a line that broke. */
const isBrokenLine = (cause: unknown): boolean =>
  cause instanceof MigrationError && ['truncated', 'sync-missing', 'missing-channels'].includes(cause.code);

const liveExitCodeOf = (cause: unknown): number => (isBrokenLine(cause) ? ExitCode.peer : exitCodeOf(cause));

/** What a live command says about the guest if it failed before anything was connected. */
const notConnected = 'nothing was connected';

/** Prints an error and its hint. */
export function reportError(thrown: unknown, exitCode = exitCodeOf(thrown)): number {
  const live = thrown instanceof LiveError ? thrown : undefined;
  const error = fileError(live === undefined ? thrown : live.cause);
  const { message, code, hint: ofFile, place } = describeError(error);
  // What helps with a file does not mend a line.
  const ofLine = error instanceof Interrupted && live?.guest === 'source' ? undefined : hintOf(live ?? {});
  const hint = ofLine ?? (live !== undefined && isBrokenLine(error) ? undefined : ofFile);
  if (manner.json) {
    const facts = {
      ...{ message, code, exitCode },
      ...(place === undefined ? {} : { place }),
      ...(hint === undefined ? {} : { hint }),
      ...(manner.isLive ? { guest: live?.guest ?? ('source' as const) } : {}),
      ...(manner.isLive || live !== undefined ? { next: live?.next ?? notConnected } : {}),
    };
    process.stderr.write(`${JSON.stringify({ error: facts, jsonVersion } satisfies ErrorJson)}\n`);
    return exitCode;
  }
  say('error', message);
  if (hint !== undefined) say('hint', hint);
  if (manner.isLive) say('guest', `${live?.guest ?? 'source'}: ${live?.next ?? notConnected}`);
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
  if (error instanceof Interrupted) return { message, code: 'interrupted' };
  const code = (error as { code?: unknown } | undefined)?.code ?? (error instanceof PeerError ? 'peer' : undefined);
  return { message, code: typeof code === 'string' ? code : 'internal', ...facts };
}
