/** What all commands share: leaving nothing behind when a signal ends them, and writing to standard output. */
import { removeUnfinished } from '../io/node/output-file.ts';
import { reportError } from './messages.ts';

/**
 * Removes unfinished output when a signal ends the process, which then dies by that signal. Node's own exit may wait
 * for ever until the code that has just run is compiled (nodejs/node#54918), and so would the user who pressed Ctrl-C.
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
    // When the reader is gone, the write that failed reports it, too, and the command ends.
    if (!isReaderGone(error)) process.exit(reportError(error));
  });
}

/** Whether an error says that the reader of standard output has seen enough (`| head`), which is not a failure. */
export function isReaderGone(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'EPIPE' && syscall === 'write';
}

/** The time that compilation of the code that has just run may take; see {@link handleSignals}. */
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
