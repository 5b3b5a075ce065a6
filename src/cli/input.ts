/** The input options that all commands share, and opening the input. */
import { open } from '../node.ts';
import { maxChannels } from '../read/channels.ts';
import type { MigrationFile } from '../read/open.ts';
import type { CliCommand } from './command.ts';
import { UsageError } from './exit-codes.ts';
import { showProgress } from './progress.ts';

/** Options for the input. The options of a command extend them. */
export interface InputOptions {
  /** Multifd channels. */
  channel?: string[];
  resumeOf?: string[];
  preempt?: string[];
  returnPath?: string[];
}

/** Collects the values of an option that can be repeated. */
export const collect = (value: string, list: string[] = []): string[] => [...list, value];

/** Gives a command its argument FILE, or several, and the options that name the files that belong to it. */
export function addInput(command: CliCommand, argument: '<FILE>' | '<FILE...>' = '<FILE>'): CliCommand {
  return command
    .argument(
      argument,
      'a stream, a mapped-ram file, a libvirt save image, IMAGE.qcow2#SNAPSHOT, ARCHIVE.zip#MEMBER, or one of these compressed; a path, PATH,offset=N, - or an http(s) URL',
    )
    .option(
      '--channel <FILE>',
      'FILE is the main stream of a multifd migration, and this is one of its channels (repeatable, in any order)',
      collect,
    )
    .option('--resume-of <FIRST>', 'FILE continues the postcopy stream FIRST, which broke off (repeatable)', collect)
    .option('--preempt <FILE>', 'capture of the postcopy-preempt channel (repeatable: one for each stream)', collect)
    .option(
      '--return-path <FILE>',
      'capture of the return path, which inspect shows and verify checks (repeatable)',
      collect,
    );
}

/** @throws UsageError if standard input is given more than once */
export function requireInputsOnce(
  locations: readonly (string | undefined)[],
  { channel = [], resumeOf = [], preempt = [], returnPath = [] }: InputOptions = {},
): void {
  const inputs = [...locations, ...channel, ...resumeOf, ...preempt, ...returnPath];
  if (inputs.filter((input) => input === '-').length < 2) return;
  throw new UsageError('expected one input on standard input, got standard input twice');
}

/** Opens `location` with the files that belong to it. @throws UsageError for a terminal, standard input twice, and too many channels */
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
