/** Shared by all commands: leaves nothing behind when a signal ends the process, and writes to standard output. */
import { removeUnfinished } from '../io/node/output-file.ts';
import { reportError } from './messages.ts';

/**
 * Signals that end a process unless it handles them. SIGUSR1 belongs to Node's debugger, and Node ignores SIGPIPE. SIGKILL
 * cannot be handled.
 */
const fatalSignals = [
  ...(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGABRT', 'SIGALRM', 'SIGVTALRM', 'SIGUSR2'] as const),
  ...(['SIGXCPU', 'SIGXFSZ', 'SIGIO', 'SIGPWR', 'SIGSTKFLT', 'SIGSYS', 'SIGTRAP', 'SIGBREAK'] as const),
];

/**
 * Removes unfinished output when a signal ends the process. The process then dies by that signal. Node's own exit may
 * wait forever for the compilation of code that has just run (nodejs/node#54918), and keep a user who pressed Ctrl-C
 * waiting.
 */
export function handleSignals(): void {
  for (const signal of fatalSignals) {
    process.once(signal, () => {
      removeUnfinished();
      if (process.stderr.isTTY === true) process.stderr.write('\r\x1b[K');
      process.kill(process.pid, signal);
    });
  }
  process.once('exit', removeUnfinished);
  process.stdout.on('error', (error) => {
    // If the reader is gone, the failed write also reports it, and the command ends.
    if (!isReaderGone(error)) process.exit(reportError(error));
  });
}

/** Whether an error means that the reader of standard output has ended (`| head`), which is not a failure. */
export function isReaderGone(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'EPIPE' && syscall === 'write';
}

/** How long the compilation of recently run code may take, see {@link handleSignals}. */
const idleMs = 100;

/** Does nothing for a moment, so that the process can end. */
export function idle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, idleMs));
}

/** Writes to standard output, and waits if its reader is slower. */
export function writeOut(bytes: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
