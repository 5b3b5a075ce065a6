/** A signal before a live command has begun: nothing is connected, so the guest is at the source, and the command says so. */
import { constants } from 'node:os';
import { Interrupted } from '../exit-codes.ts';
import { reportError } from '../messages.ts';

/** The signals that end a live command in good order. */
export const liveSignals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

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
