/** The exit codes that all commands share, and what they mean. A command can give one of them another meaning, or add one. */

export const ExitCode = { ok: 0, badInput: 1, trouble: 2, peer: 3 } as const;

/** Exit codes in words, by number. */
export type ExitCodes = Readonly<Record<number, string>>;

export const commonExitCodes: ExitCodes = {
  [ExitCode.ok]: 'success',
  [ExitCode.badInput]: 'the input is bad',
  [ExitCode.trouble]: 'wrong usage, or the work failed (no such file, disk full)',
};

/** The codes of the live commands besides the common ones. */
export const liveExitCodes: ExitCodes = {
  [ExitCode.peer]: 'the peer failed: it refused, broke off, or was silent for too long',
};

/** What a shell reports when a signal ended the command. */
export const signalExitCodes: ExitCodes = {
  129: 'ended by SIGHUP',
  130: 'interrupted (SIGINT)',
  131: 'ended by SIGQUIT',
  143: 'terminated (SIGTERM)',
};

/** The command line asks for something that is not possible. */
export class UsageError extends Error {}

/** A signal that ends a live command in good order. */
export class Interrupted extends Error {
  readonly exitCode: number;

  constructor(signal: NodeJS.Signals, exitCode: number) {
    super(`ended by ${signal}`);
    this.exitCode = exitCode;
  }
}
