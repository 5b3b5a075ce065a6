/** The input that all commands take: what may be said of it on the command line, and opening it. */
import type { Command } from 'commander';
import { open } from '../node.ts';
import { maxChannels } from '../read/channels.ts';
import type { MigrationFile } from '../read/open.ts';
import { showProgress } from './progress.ts';
import { UsageError } from './run.ts';

/** Options about the input; a command's own options extend them. */
export interface InputOptions {
  /** Multifd channels. */
  channel?: string[];
  resumeOf?: string[];
  preempt?: string[];
  returnPath?: string[];
}

/** Takes an option that may be given more than once. */
export const collect = (value: string, list: string[] = []): string[] => [...list, value];

/** Gives a command its argument FILE and the options that say what belongs to it. */
export function addInput(command: Command): Command {
  return command
    .argument(
      '<FILE>',
      'stream, mapped-ram file, libvirt save image, IMAGE.qcow2#SNAPSHOT, ARCHIVE.zip#MEMBER, or one of these compressed; a path, PATH,offset=N, - or an http(s) URL',
    )
    .option(
      '--channel <FILE>',
      'a channel of the multifd migration whose main stream FILE is; once for each, in any order',
      collect,
    )
    .option(
      '--resume-of <FIRST>',
      'FILE is a recovery of the postcopy stream FIRST, which breaks off (repeatable)',
      collect,
    )
    .option('--preempt <FILE>', "capture of the postcopy-preempt channel (repeatable: of each stream's)", collect)
    .option('--return-path <FILE>', 'capture of what the destination answered, for display (repeatable)', collect);
}

/** @throws UsageError if standard input is more than one of the files and what belongs to them */
export function requireInputsOnce(
  locations: readonly (string | undefined)[],
  { channel = [], resumeOf = [], preempt = [], returnPath = [] }: InputOptions = {},
): void {
  const inputs = [...locations, ...channel, ...resumeOf, ...preempt, ...returnPath];
  if (inputs.filter((input) => input === '-').length < 2) return;
  throw new UsageError('expected one input on standard input, got standard input twice');
}

/** Opens `location` with what belongs to it. @throws UsageError for a terminal, standard input twice, and too many channels */
export function openInput(location: string, options: InputOptions): Promise<MigrationFile> {
  const { channel: channels = [], resumeOf = [], preempt = [], returnPath = [] } = options;
  requireInputsOnce([location], options);
  if ([location, ...channels].includes('-') && process.stdin.isTTY === true) {
    throw new UsageError('expected a migration stream on standard input, got a terminal');
  }
  if (channels.length > maxChannels) {
    throw new UsageError(`expected at most ${maxChannels} channels, got ${channels.length}`);
  }
  return open(location, { channels, resumeOf, preempt, returnPath });
}

/** Opens `location`, runs `work` on it with a progress line, and closes it. */
export async function withFile<Result>(
  verb: string,
  location: string,
  options: InputOptions,
  work: (file: MigrationFile) => Promise<Result>,
): Promise<Result> {
  const file = await openInput(location, options);
  const progress = showProgress(verb, file);
  try {
    return await work(file);
  } finally {
    progress.stop();
    await file.close();
  }
}
