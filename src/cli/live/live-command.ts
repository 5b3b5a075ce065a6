/**
 * What the live commands share: options for TLS and time limits, the ready line, the dashboard, and an end in good order.
 *
 *     ready      `listening on URI`, alone on its line, never silenced
 *     waiting    every 10 s while a live peer is silent
 *     refused    a connection that is not part of a migration
 *     recovery   `recover at URI`, alone on its line, never silenced
 *     signal     the first ends the migration, and the command says where the guest is; the second ends the process. Where
 *                much depends on it, the first Ctrl-C only says so
 */
import { setFlagsFromString } from 'node:v8';
import { Option } from 'commander';
import { formatMigrationUri, type MigrationAddress } from '../../io/migration-address.ts';
import { UserObjects } from '../../io/node/tls-objects.ts';
import type { CliCommand } from '../command.ts';
import { liveExitCodes, UsageError } from '../exit-codes.ts';
import { insist, note, warn } from '../messages.ts';
import type { LiveVerb } from '../print/migration-line.ts';
import { parseSeconds } from '../size.ts';
import { Dashboard } from './dashboard.ts';
import { interruptedBy, onFirstSignal } from './early-signals.ts';

/** Options of all live commands. */
export interface LiveOptions {
  object?: string[];
  /** In ms. */
  setupTimeout?: number;
  /** In ms. */
  idleTimeout?: number;
  json?: boolean;
}

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** Adds the common options. */
export function addLiveOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--object <OBJECT>',
      'a QEMU object, TYPE,id=ID,...: TLS credentials, a secret, or a rule of authorization (repeatable)',
      collect,
    )
    .addOption(
      new Option(
        '--setup-timeout <SECONDS>',
        'give up connecting, a handshake, and a first connection that sends nothing, after this time',
      )
        .argParser(parseSeconds)
        .default(30_000, '30'),
    )
    .option(
      '--idle-timeout <SECONDS>',
      'end if the peer sends and takes no byte for this long (default: wait)',
      parseSeconds,
    )
    .option('--json', 'print the result as JSON')
    .describe({ exitCodes: liveExitCodes });
}

/** @throws UsageError for an address that can only be listened at */
export function requireHost(address: MigrationAddress): void {
  if (address.transport !== 'socket' || address.type !== 'inet' || address.host !== '') return;
  throw new UsageError(`expected a host to connect to, got ${formatMigrationUri(address)}`);
}

/** What a live command works with. */
export interface Live {
  /** Aborted by SIGINT, SIGTERM and SIGHUP. */
  signal: AbortSignal;
  objects: UserObjects;
  setupTimeoutMs: number;
  idleTimeoutMs: number | undefined;
  dashboard: Dashboard;
  /** What the first Ctrl-C says instead of ending the migration. Undefined: it ends it. */
  warning: string | undefined;
  /** Prints the ready line. */
  listening(uri: string): void;
  /** Says that the migration has broken, and where it can go on. */
  recoverAt(uri: string, why: string): void;
  /** Reports a silent peer, and what it has to do. */
  waiting(silentMs: number, what: string): void;
  /** Reports a connection that was refused. */
  stranger(peer: string, why: string): void;
}

/** @throws UsageError if the stream is to leave on standard output, which cannot take it */
export function requireOutput({ transport }: MigrationAddress, { json }: LiveOptions): void {
  if (transport !== 'stdio') return;
  if (json === true) throw new UsageError('expected either --json or the stream on standard output, got both');
  if (process.stdout.isTTY === true) throw new UsageError('expected a pipe or a file for the stream, got a terminal');
}

/** Runs a live command. A signal aborts `live.signal`, and a second one ends the process at once. */
export async function runLive(
  verb: LiveVerb,
  options: LiveOptions,
  action: (live: Live) => Promise<void>,
): Promise<void> {
  // V8's optimizing compiler takes a fifth of a short migration's CPU time, for functions that run once per MiB. Called later,
  // it optimizes what a long migration has use for (bench/README.md, "Live migrations"). Only the V8 of Node 20 has the flag.
  if (process.versions.v8.startsWith('11.')) setFlagsFromString('--interrupt-budget=1000000');
  const objects = new UserObjects();
  for (const spec of options.object ?? []) objects.add(spec);
  const controller = new AbortController();
  const dashboard = new Dashboard(verb);
  const say = (facts: object, text: string, tell = note) => {
    dashboard.hide();
    if (options.json === true) process.stderr.write(`${JSON.stringify(facts)}\n`);
    else tell(text);
  };
  const live: Live = {
    signal: controller.signal,
    objects,
    setupTimeoutMs: options.setupTimeout ?? 30_000,
    idleTimeoutMs: options.idleTimeout,
    dashboard,
    warning: undefined,
    listening: (uri) => process.stderr.write(`listening on ${uri}\n`),
    recoverAt(uri, why) {
      say({ broken: { why } }, `the migration broke in postcopy, and can go on: ${why}`, warn);
      process.stderr.write(`recover at ${uri}\n`);
    },
    waiting(silentMs, what) {
      const seconds = Math.round(silentMs / 1000);
      say({ waiting: { seconds, for: what } }, `the peer has been silent for ${seconds} s; waiting for ${what}`);
    },
    stranger: (peer, why) => say({ refused: { peer, why } }, `a connection from ${peer} was refused: ${why}`, warn),
  };
  const ignoreSignals = onFirstSignal(
    (signal) => controller.abort(interruptedBy(signal)),
    (signal) => {
      const { warning } = live;
      if (signal !== 'SIGINT' || warning === undefined) return false;
      live.warning = undefined;
      say({ interrupted: warning }, warning, insist);
      return true;
    },
  );
  try {
    await action(live);
  } finally {
    dashboard.stop();
    ignoreSignals();
  }
}
