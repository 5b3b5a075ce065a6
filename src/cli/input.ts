/** The input that all commands take: what may be said of it on the command line, and opening it. */
import type { Command } from 'commander';
import type { MigrationFile } from '../file/open.ts';
import { open } from '../node.ts';
import { showProgress } from './progress.ts';
import { UsageError } from './run.ts';

/** Options about the input; a command's own options extend them. */
export interface InputOptions {
  resumeOf?: string[];
  preempt?: string[];
  returnPath?: string[];
}

/** Takes an option that may be given more than once. */
const collect = (value: string, list: string[] = []): string[] => [...list, value];

/** Gives a command its argument FILE and the options that say what belongs to it. */
export function addInput(command: Command): Command {
  return command
    .argument('<FILE>', 'stream or mapped-ram file; - for standard input; PATH,offset=N')
    .option(
      '--resume-of <FIRST>',
      'FILE is a recovery of the postcopy stream FIRST, which breaks off (repeatable)',
      collect,
    )
    .option('--preempt <FILE>', "capture of the postcopy-preempt channel (repeatable: of each stream's)", collect)
    .option('--return-path <FILE>', 'capture of what the destination answered, for display (repeatable)', collect);
}

/** Opens `location`, runs `work` on it with a progress line, and closes it. */
export async function withFile<Result>(
  verb: string,
  location: string,
  { resumeOf, preempt, returnPath }: InputOptions,
  work: (file: MigrationFile) => Promise<Result>,
): Promise<Result> {
  if (location === '-' && process.stdin.isTTY === true) {
    throw new UsageError('expected a migration stream on standard input, got a terminal');
  }
  const parts = { resumeOf, preempt, returnPath };
  const given = Object.entries(parts).filter(([, paths]) => paths !== undefined);
  const file = await open(location, Object.fromEntries(given));
  const progress = showProgress(verb, file);
  try {
    return await work(file);
  } finally {
    progress.stop();
    await file.close();
  }
}
