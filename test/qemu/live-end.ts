/**
 * How the sides of a live migration that was harmed have ended. The tests of live commands compare that with what the
 * command said.
 */
import { expect } from 'vitest';
import type { LiveCommand, LiveEnd } from './live-command.ts';
import type { HarmingProxy } from './proxy.ts';
import type { MigrationInfo, Qemu } from './qemu.ts';
import { waitUntil } from './wait-until.ts';

/** How long QEMU may take to answer, in ms. */
const answerMs = 3000;
/** A target that did not begin within this time has got nothing to begin with, in ms. */
const beginMs = 500;

/** Numbers from 0 to 1, the same ones for each seed. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export interface LiveErrorLine {
  guest: string;
  message: string;
  next?: string;
}

/** The error that a command with `--json` printed. Requires that it is exactly one line, and the last. */
export function errorLine(stderr: string): LiveErrorLine {
  const lines = stderr.trimEnd().split('\n');
  const errors = lines.filter((line) => /^\{"error":/.test(line));
  expect(errors, stderr).toHaveLength(1);
  expect(lines.at(-1), stderr).toBe(errors[0]);
  // No line is a stack trace.
  expect(stderr).not.toMatch(/^ {4}at /m);
  return JSON.parse(errors[0] as string).error;
}

/** The status of the source. `hung`: QEMU 10.0 may block for ever when a multifd channel breaks. */
const statusOf = (qemu: Qemu): Promise<string> =>
  qemu.execute<MigrationInfo>('query-migrate', {}, answerMs).then(
    ({ status = '', 'error-desc': error }) => (status === 'device' && error !== undefined ? 'device, failed' : status),
    (error) => {
      if (/no answer to/.test(String(error))) return 'hung';
      throw error;
    },
  );

/** Whether a guest runs. */
export const isRunning = async (qemu: Qemu): Promise<boolean> =>
  (await qemu.execute<{ running: boolean }>('query-status')).running;

/** How a migration ended whose line is gone. */
export async function settledStatus(qemu: Qemu, isPostcopy: boolean): Promise<string> {
  let status = '';
  // QEMU may wait for ever when the line breaks at the beginning of postcopy: 7.2 for the last word, 10.0 after it has
  // noticed.
  const waits = !isPostcopy ? [] : qemu.version === '7.2' ? ['postcopy-active'] : ['device, failed'];
  await waitUntil('the source has noticed the end', async () => {
    status = await statusOf(qemu);
    return ['completed', 'failed', 'cancelled', 'postcopy-paused', 'hung', ...waits].includes(status);
  });
  return status;
}

/** Whether the process has ended. */
export const isGone = ({ child }: Qemu): boolean => child.exitCode !== null || child.signalCode !== null;

/**
 * The end of a command with `--json`, to which a source migrates through a proxy over tcp. A main connection that is gone
 * before it was read is a stranger's, and the command waits for the next one: then it is interrupted. So it is if the source
 * has ended without a connection, and if the command waits for a source in postcopy to come again.
 */
export async function endOf(command: LiveCommand, source: Qemu, proxy: HarmingProxy): Promise<LiveEnd> {
  let hasEnded = false;
  void command.ended.then(() => {
    hasEnded = true;
  });
  const hasNone = async () =>
    isGone(source) || ['failed', 'cancelled', 'hung'].includes(await statusOf(source).catch(() => ''));
  const has = (line: RegExp) => line.test(command.stderr);
  await waitUntil('the command ends, refuses the source, or waits for it to come again', () => {
    const [main] = proxy.passed;
    return hasEnded || has(/^recover at /m) || (main === undefined ? hasNone() : isRefused(command, main.port));
  });
  // In postcopy the first one only says what is at stake.
  const isFirst = has(/^recover at /m) && !has(/^\{"interrupted"/m);
  command.kill('SIGINT');
  if (isFirst) {
    await waitUntil('the command has said what is at stake', () => hasEnded || has(/^\{"interrupted"/m));
    command.kill('SIGINT');
  }
  return command.ended;
}

/** Whether a command with `--json` has refused the connection from a port. */
const isRefused = ({ stderr }: LiveCommand, port: number | undefined): boolean =>
  stderr
    .split('\n')
    .some((line) => line.startsWith('{"refused":') && JSON.parse(line).refused.peer.endsWith(`:${port}`));

/**
 * How a target has ended: `gone` if its process has, as QEMU's does when an incoming migration fails, and `waiting` if
 * nothing has begun.
 */
export async function targetEnd(qemu: Qemu): Promise<string> {
  let status = '';
  const from = performance.now();
  await waitUntil('the target has noticed the end', async () => {
    if (isGone(qemu)) status = 'gone';
    else status = await statusOf(qemu).catch(() => 'leaving');
    if (['', 'none', 'setup'].includes(status) && performance.now() - from > beginMs) status = 'waiting';
    return ['gone', 'waiting', 'completed', 'failed', 'postcopy-paused', 'hung'].includes(status);
  });
  return status;
}

/** Whether a QEMU with the capability `events` has said that a migration is completed. */
export const hasCompleted = (qemu: Qemu): boolean =>
  qemu.events.some(({ event, data }) => event === 'MIGRATION' && data?.status === 'completed');

/** A place in what passed through a proxy. */
export interface Point {
  connection: number;
  way: 'there' | 'back';
  at: number;
}

/** Random places of a migration, given what passed in a whole one. Every third is among the last bytes of a connection. */
export function* pointsOf(
  passed: HarmingProxy['passed'],
  count: number,
  random: () => number,
): Generator<Point & { index: number }> {
  for (let index = 0; index < count; index++) {
    const connection = Math.floor(random() * passed.length);
    const whole = passed[connection] ?? { there: 0, back: 0 };
    const way = index % 4 === 3 && whole.back > 0 ? 'back' : 'there';
    const depth = index % 3 === 1 ? whole[way] - random() * 400 : random() * whole[way];
    yield { index, connection, way, at: Math.max(1, Math.floor(depth)) };
  }
}

/** What `receive` prints with `--json` if the guest has arrived, and its source could not be told. */
export const untold = { confirmed: false, found: { postcopy: true } };
