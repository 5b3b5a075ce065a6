/** Runs the built command line as a user would. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

export const cliPath = fileURLToPath(new URL('../dist/cli.js', import.meta.url));

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  /** The same, as bytes. */
  bytes: Buffer;
  stderr: string;
  /** Largest resident size of the process, in bytes. */
  maxRss: number;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Sends this signal when the process has run for `afterMs`. */
  interrupt?: { signal: NodeJS.Signals; afterMs: number };
  /** The process is killed, and the call rejects, after this time. */
  timeoutMs?: number;
}

const rssMark = 'maxRSS=';
/** Makes the process say its largest resident size when it ends. */
const reportRss = `process.on('exit',()=>require('fs').writeSync(2,'${rssMark}'+process.resourceUsage().maxRSS+'\\n'))`;
const reportModule = `data:text/javascript,import{createRequire}from'module';const require=createRequire('file:///');${encodeURIComponent(reportRss)}`;

/** Runs `vmferry` with the arguments; `input` is its standard input, empty by default. */
export function runCli(args: string[], input?: Readable | Uint8Array, options: CliOptions = {}): Promise<CliResult> {
  const { cwd, env = {}, interrupt, timeoutMs = 120_000 } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', reportModule, cliPath, ...args], {
      cwd,
      env: { ...process.env, NODE_OPTIONS: '', ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
    });
    // The process may have seen enough, or have been interrupted, before its input ends.
    child.stdin.on('error', () => {});
    if (input === undefined) child.stdin.end();
    else if (input instanceof Uint8Array) child.stdin.end(input);
    else input.pipe(child.stdin);
    const late = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`vmferry ${args.join(' ')} did not end within ${timeoutMs} ms`));
    }, timeoutMs);
    const signalling = interrupt && setTimeout(() => child.kill(interrupt.signal), interrupt.afterMs);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(late);
      clearTimeout(signalling);
      if (input !== undefined && !(input instanceof Uint8Array)) input.destroy();
      const mark = err.lastIndexOf(rssMark);
      const maxRss = mark === -1 ? Number.NaN : Number.parseInt(err.slice(mark + rssMark.length), 10) * 1024;
      const stderr = mark === -1 ? err : err.slice(0, mark);
      const bytes = Buffer.concat(out);
      // As a shell says it.
      const status = signal === null ? code : 128 + constants.signals[signal];
      resolve({ code: status, signal, stdout: bytes.toString(), bytes, stderr, maxRss });
    });
  });
}
