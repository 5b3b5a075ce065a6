/** Runs the built command line as a user would. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { hangGuardMs, moreCases } from './limits.ts';

export const cliPath = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const reportUsage = new URL('./report-usage.mjs', import.meta.url).href;

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  /** The same, as bytes. */
  bytes: Buffer;
  stderr: string;
  /** CPU time that it took. Undefined if a signal ended it. */
  cpuMs: number | undefined;
  /** Largest resident size of its own process, in bytes. Undefined if a signal ended it, or the system has no /proc. */
  peakMemory: number | undefined;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  /**
   * Sends this signal once the command has installed handlers so many `times` (by default once), and `once`, if given, returns
   * true. A live command installs its third ones when it begins.
   */
  interrupt?: { signal: NodeJS.Signals; times?: number; once?: () => boolean };
  /** Runs it in a process of its own, whose memory can be measured. */
  alone?: boolean;
}

/**
 * Runs `vmferry` with the arguments; `input` is its standard input, empty by default. A command without
 * input, signals and devices shares a process with others (`cli-host.mjs`), unless more than a few cases are tested.
 */
export async function runCli(
  args: string[],
  input?: Readable | Uint8Array,
  options: CliOptions = {},
): Promise<CliResult> {
  const { interrupt, alone = false } = options;
  const usesStreams = input !== undefined || args.some((arg) => /^\/(dev|proc)\//.test(arg));
  if (moreCases || alone || usesStreams || interrupt !== undefined) return runAlone(args, input, options);
  const turn = lastRun.then(() => runShared(args, options));
  lastRun = turn.catch(() => {});
  return turn;
}

/** The environment of a command: that of the tests, as it is now, and what the command gets in addition. */
const environment = (env: Record<string, string> = {}) => ({ ...process.env, NODE_OPTIONS: '', ...env });

/** The shared process runs one command at a time. */
let lastRun: Promise<unknown> = Promise.resolve();
let host: ChildProcess | undefined;

function runShared(args: string[], { cwd, env = {} }: CliOptions): Promise<CliResult> {
  host ??= startHost();
  const child = host;
  child.ref();
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(hung);
      child.removeAllListeners('message').removeAllListeners('exit').unref();
    };
    const fail = (why: string) => {
      end();
      child.kill('SIGKILL');
      host = undefined;
      reject(new Error(`vmferry ${args.join(' ')} ${why}`));
    };
    const hung = setTimeout(() => fail(`did not end within ${hangGuardMs} ms`), hangGuardMs);
    child.on('exit', (code, signal) => fail(`ended the shared process (${signal ?? code})`));
    child.on('message', (answer: HostAnswer) => {
      if ('failure' in answer) return fail(answer.failure);
      end();
      const { stdout, ...rest } = answer;
      resolve({ ...rest, signal: null, stdout: stdout.toString(), bytes: stdout, peakMemory: undefined });
    });
    child.send({ args, cwd, env: environment(env) });
  });
}

type HostAnswer = { failure: string } | { code: number; stdout: Buffer; stderr: string; cpuMs: number };

function startHost(): ChildProcess {
  const child = fork(fileURLToPath(new URL('./cli-host.mjs', import.meta.url)), {
    env: environment(),
    execArgv: [],
    serialization: 'advanced',
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  // It ends with this process, whose end closes the channel.
  child.unref();
  child.channel?.unref();
  return child;
}

function runAlone(args: string[], input: Readable | Uint8Array | undefined, options: CliOptions): Promise<CliResult> {
  const { cwd, env = {}, interrupt } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', reportUsage, cliPath, ...args], {
      cwd,
      env: environment(env),
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    let err = '';
    let readyTimes = 0;
    let usage: Pick<CliResult, 'cpuMs' | 'peakMemory'> = { cpuMs: undefined, peakMemory: undefined };
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
    });
    createInterface(child.stdio[3] as Readable).on('line', (line) => {
      const { ready, ...rest } = JSON.parse(line);
      if (ready !== true) usage = { ...usage, ...rest };
      else if (++readyTimes === (interrupt?.times ?? 1) && interrupt !== undefined) void signalOnce(child, interrupt);
    });
    // The process may stop reading, or be interrupted, before its input ends.
    child.stdin.on('error', () => {});
    if (input === undefined) child.stdin.end();
    else if (input instanceof Uint8Array) child.stdin.end(input);
    else input.pipe(child.stdin);
    const hung = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`vmferry ${args.join(' ')} did not end within ${hangGuardMs} ms`));
    }, hangGuardMs);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(hung);
      if (input !== undefined && !(input instanceof Uint8Array)) input.destroy();
      const bytes = Buffer.concat(out);
      // As a shell reports it.
      const status = signal === null ? code : 128 + constants.signals[signal];
      resolve({ code: status, signal, stdout: bytes.toString(), bytes, stderr: err, ...usage });
    });
  });
}

const hasEnded = ({ exitCode, signalCode }: ChildProcess) => exitCode !== null || signalCode !== null;

/**
 * Sends a signal to a process once `once` returns true, or at once without it. Sends none if the process ends first.
 */
export async function signalOnce(
  child: ChildProcess,
  { signal, once = () => true }: { signal: NodeJS.Signals; once?: () => boolean },
): Promise<void> {
  while (!hasEnded(child) && !once()) await sleep(1);
  if (!hasEnded(child)) child.kill(signal);
}

/** Checks the peak memory of a command, where the system reports it. */
export function expectPeakMemory({ peakMemory }: CliResult, limit: number, what?: string): void {
  if (peakMemory === undefined) {
    console.warn('skipped: the check of peak memory, since this system has no /proc');
    return;
  }
  expect(peakMemory, what).toBeGreaterThan(0);
  expect(peakMemory, what).toBeLessThan(limit);
}
