/**
 * What all commands share: exit codes, and leaving nothing behind when interrupted.
 *
 *     0 fine · 1 the input is bad · 2 usage or tool error · 130, 143, 129 ended by SIGINT, SIGTERM, SIGHUP
 */
import { removeUnfinished } from '../io/node/output-file.ts';
import { MigrationError } from '../wire/migration-error.ts';
import { painter, printable } from './format.ts';

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

const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Removes unfinished output when a signal ends the process. */
export function handleSignals(): void {
  for (const [signal, code] of Object.entries(signals)) {
    process.on(signal, () => {
      removeUnfinished();
      if (process.stderr.isTTY === true) process.stderr.write('\r\x1b[K');
      process.exit(code);
    });
  }
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(ExitCode.ok);
    process.exit(reportError(error));
  });
}

/** Writes to standard output, waiting while its reader is slower. */
export function writeOut(bytes: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
