/**
 * QEMUs that run on a file, as children: the small stream comes through descriptor 3, and descriptor 4 holds the lock on FILE for as
 * long as they live, also if this process is killed.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { basename } from 'node:path';
import type { Writable } from 'node:stream';
import type { ByteSink } from '../../io/byte-source.ts';
import { UsageError } from '../exit-codes.ts';

/** Where a QEMU finds the small stream. */
export const streamUri = 'fd:3';
/** How long a QEMU may take to say what it can do, in ms. */
const questionMs = 20_000;

/** A QEMU that was started. */
export class RunningQemu {
  readonly #child: ChildProcess;
  /** Its exit code, as a shell counts it. */
  readonly ended: Promise<number>;
  #hasEnded = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#hasEnded = true;
        resolve(code ?? 128 + constants.signals[signal as NodeJS.Signals]);
      });
    });
  }

  /**
   * Starts a QEMU. Its standard streams are those of this process.
   * @throws UsageError for a command that cannot be run
   */
  static async start(command: string, args: readonly string[], lock: number | undefined): Promise<RunningQemu> {
    const child = spawn(command, args, { stdio: ['inherit', 'inherit', 'inherit', 'pipe', lock ?? 'ignore'] });
    const started = new RunningQemu(child);
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', ({ message }) => reject(new UsageError(`cannot run ${command}: ${message}`)));
    });
    // Signals of this process fail if it has ended.
    child.on('error', () => {});
    return started;
  }

  /**
   * Gives it the small stream, which `write` writes. Resolves when QEMU has all of it, or has ended.
   * @throws what `write` throws, unless the QEMU has closed the line
   */
  async feed(write: (sink: ByteSink) => Promise<unknown>): Promise<void> {
    const line = this.#child.stdio[3] as Writable;
    let closed: Error | undefined;
    line.on('error', (error) => (closed ??= error));
    const take = (bytes: Uint8Array) =>
      new Promise<void>((resolve, reject) => {
        line.write(bytes, (error) => {
          closed ??= error ?? undefined;
          if (closed === undefined) resolve();
          else reject(closed);
        });
      });
    try {
      await write({ write: take });
      await new Promise<void>((resolve) => line.end(resolve));
    } catch (error) {
      // Its own words and its exit code say why.
      if (error !== closed) throw error;
    } finally {
      line.destroy();
    }
  }

  /** Passes a signal on. */
  kill(signal: NodeJS.Signals): void {
    if (!this.#hasEnded) this.#child.kill(signal);
  }
}

/** What a QEMU is called. Any other program is not run with other arguments than those given, because it may do anything. */
const qemuName = /^qemu-(kvm|system-\w+)$/;

/** Whether a QEMU is older than 8.2, the first that can run on a file in place. Unknown ones are not. Never rejects. */
export function isOld(command: string): Promise<boolean> {
  if (!qemuName.test(basename(command))) return Promise.resolve(false);
  return new Promise((resolve) => {
    const child = execFile(command, ['--version'], { timeout: questionMs }, (_, stdout) => {
      const [, major, minor] = /version (\d+)\.(\d+)/.exec(stdout) ?? [];
      resolve(major !== undefined && Number(major) * 100 + Number(minor) < 802);
    });
    child.stdin?.end();
  });
}

/** What the memory backends of a QEMU lack to run on a file in place. Undefined: nothing, or it does not say. */
export function missingProperties(command: string): { version: string; missing: string[] } | undefined {
  const ask = (...args: string[]) => {
    const { stdout, status } = spawnSync(command, args, {
      encoding: 'utf8',
      timeout: questionMs,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return status === 0 ? stdout : '';
  };
  const help = ask('-object', 'memory-backend-file,help');
  if (!/^\s*mem-path=/m.test(help)) return undefined;
  const missing = ['offset', 'rom'].filter((name) => !new RegExp(`^\\s*${name}=`, 'm').test(help));
  const version = /version (\S+)/.exec(ask('--version'))?.[1] ?? 'of this version';
  return missing.length === 0 ? undefined : { version, missing };
}
