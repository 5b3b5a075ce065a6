/** Runs the built command line as a user would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { hangGuardMs } from './limits.ts';

export const cliPath = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const reportUsage = new URL('./report-usage.mjs', import.meta.url).href;

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  /** The same, as bytes. */
  bytes: Buffer;
  stderr: string;
  /** CPU time of the process. Undefined if a signal ended it. */
  cpuMs: number | undefined;
  /** Largest resident size of the process, in bytes. Undefined if a signal ended it, or the system has no /proc. */
  peakMemory: number | undefined;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Sends this signal once the command handles signals and `once`, if given, returns true. */
  interrupt?: { signal: NodeJS.Signals; once?: () => boolean };
}

/** Runs `vmferry` with the arguments; `input` is its standard input, empty by default. */
export function runCli(args: string[], input?: Readable | Uint8Array, options: CliOptions = {}): Promise<CliResult> {
  const { cwd, env = {}, interrupt } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', reportUsage, cliPath, ...args], {
      cwd,
      env: { ...process.env, NODE_OPTIONS: '', ...env },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    let err = '';
    let usage: Pick<CliResult, 'cpuMs' | 'peakMemory'> = { cpuMs: undefined, peakMemory: undefined };
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
    });
    createInterface(child.stdio[3] as Readable).on('line', (line) => {
      const { ready, ...rest } = JSON.parse(line);
      if (ready !== true) usage = { ...usage, ...rest };
      else if (interrupt !== undefined) void signalOnce(child, interrupt);
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
