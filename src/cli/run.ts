/**
 * What all commands share: exit codes, and leaving nothing behind when interrupted.
 *
 *     0 fine · 1 the input is bad · 2 usage or tool error · 130, 143, 129 ended by SIGINT, SIGTERM, SIGHUP
 */
import { removeUnfinished } from '../io/node/output-file.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { painter, printable } from './print/format.ts';

export const ExitCode = { ok: 0, badInput: 1, trouble: 2 } as const;

/** The command line asks for something that cannot be. */
export class UsageError extends Error {}

/** Prints an error and says which exit code it deserves. */
export function reportError(error: unknown): number {
  const paint = painter(process.stderr);
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${paint('red', 'vmferry:')} ${printable(message)}\n`);
  if (error instanceof MigrationError) return ExitCode.badInput;
  const isExpected = error instanceof UsageError || error instanceof RangeError || (error as { code?: unknown })?.code;
  if (!isExpected && error instanceof Error && error.stack !== undefined) process.stderr.write(`${error.stack}\n`);
  return ExitCode.trouble;
}

/**
 * Removes unfinished output when a signal ends the process, which then dies by that signal. Node's own exit may wait
 * for ever for the compilation of what has just been running (nodejs/node#54918), and whoever pressed Ctrl-C would, too.
 */
export function handleSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      removeUnfinished();
      if (process.stderr.isTTY === true) process.stderr.write('\r\x1b[K');
      process.kill(process.pid, signal);
    });
  }
  process.once('exit', removeUnfinished);
  process.stdout.on('error', (error) => {
    // Whoever writes is told, too, and ends.
    if (!isReaderGone(error)) process.exit(reportError(error));
  });
}

/** Whether an error says that the reader of standard output has seen enough (`| head`), which is no error. */
export function isReaderGone(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'EPIPE' && syscall === 'write';
}

/** As long as compilation of what has just been running may take; see {@link handleSignals}. */
const idleMs = 100;

/** Does nothing for a moment, so that the process can end. */
export function idle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, idleMs));
}

/** Writes to standard output, waiting while its reader is slower. */
export function writeOut(bytes: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
