/** The exit codes that all commands share, and what they mean. A command can give one of them another meaning, or add one. */

export const ExitCode = { ok: 0, badInput: 1, trouble: 2 } as const;

/** Exit codes in words, by number. */
export type ExitCodes = Readonly<Record<number, string>>;

export const commonExitCodes: ExitCodes = {
  [ExitCode.ok]: 'success',
  [ExitCode.badInput]: 'the input is bad',
  [ExitCode.trouble]: 'wrong usage, or the work failed (no such file, disk full)',
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
