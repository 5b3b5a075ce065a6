/** The input that all commands take: what may be said of it on the command line, and opening it. */
import type { Command } from 'commander';
import type { MigrationFile } from '../file/open.ts';
import { open } from '../node.ts';
import { showProgress } from './progress.ts';
import { UsageError } from './run.ts';

/** Options about the input; a command's own options extend them. */
// biome-ignore lint/suspicious/noEmptyInterface: one place for what is said of inputs.
export interface InputOptions {}

/** Gives a command its argument FILE and the options that say what belongs to it. */
export function addInput(command: Command): Command {
  return command.argument(
    '<FILE>',
    'stream, mapped-ram file, libvirt save image, IMAGE.qcow2#SNAPSHOT, or one of these compressed; a path, PATH,offset=N, - or an http(s) URL',
  );
}

/** Opens `location`, runs `work` on it with a progress line, and closes it. */
export async function withFile<Result>(
  verb: string,
  location: string,
  _options: InputOptions,
  work: (file: MigrationFile) => Promise<Result>,
): Promise<Result> {
  if (location === '-' && process.stdin.isTTY === true) {
    throw new UsageError('expected a migration stream on standard input, got a terminal');
  }
  const file = await open(location);
  const progress = showProgress(verb, file);
  try {
    return await work(file);
  } finally {
    progress.stop();
    await file.close();
  }
}
