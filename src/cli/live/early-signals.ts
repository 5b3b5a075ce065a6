/** A signal before a live command has begun: nothing is connected, so the guest is at the source, and the command says so. */
import { constants } from 'node:os';
import { Interrupted } from '../exit-codes.ts';
import { reportError } from '../messages.ts';
import { handleSignals } from '../run.ts';

/** The signals that end a live command in good order. */
const liveSignals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/** The error of a command that a signal ended. */
export const interruptedBy = (signal: NodeJS.Signals): Interrupted =>
  new Interrupted(signal, 128 + constants.signals[signal]);

/** Replaces the handlers of these signals until the command installs its own. */
export function handleEarlySignals(): void {
  for (const signal of liveSignals) {
    process.removeAllListeners(signal);
    process.once(signal, () => process.exit(reportError(interruptedBy(signal))));
  }
}

/**
 * Calls `end` with the first such signal; a second one ends the process at once. A signal for which `answer` returns true
 * was answered in another way, and does not count. Returns what takes the handlers away.
 */
export function onFirstSignal(
  end: (signal: NodeJS.Signals) => void,
  answer: (signal: NodeJS.Signals) => boolean = () => false,
): () => void {
  const handle = (signal: NodeJS.Signals) => {
    if (answer(signal)) return;
    for (const each of liveSignals) process.removeAllListeners(each);
    handleSignals();
    end(signal);
  };
  for (const signal of liveSignals) {
    process.removeAllListeners(signal);
    process.on(signal, handle);
  }
  return () => {
    for (const signal of liveSignals) process.off(signal, handle);
  };
}
