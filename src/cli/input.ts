/** The input options that all commands share, and opening the input. */
import type { Abortable } from '../io/abort.ts';
import { isHttp } from '../io/http-source.ts';
import { type ChosenChannels, findChannels, groupSets, open } from '../node.ts';
import { maxChannels } from '../read/channels.ts';
import type { MigrationFile } from '../read/open.ts';
import type { CliCommand } from './command.ts';
import { UsageError } from './exit-codes.ts';
import { note, warn } from './messages.ts';
import { plural } from './print/format.ts';
import { showProgress } from './progress.ts';

/** Options for the input. The options of a command extend them. */
export interface InputOptions {
  /** Multifd channels. */
  channel?: string[];
  resumeOf?: string[];
  preempt?: string[];
  returnPath?: string[];
  /** False with --no-discover. */
  discover?: boolean;
}

/** Collects the values of an option that can be repeated. */
export const collect = (value: string, list: string[] = []): string[] => [...list, value];

/** Reads a main stream without the channels beside it. */
export const discoverOption = [
  '--no-discover',
  'do not look for the channels of a multifd main stream beside it: FILE.0, FILE.1 and so on',
] as const;

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
    .option(...discoverOption)
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
export async function openInput(
  location: string,
  options: InputOptions,
  { signal }: Abortable = {},
): Promise<MigrationFile> {
  const { channel: channels = [], resumeOf = [], preempt = [], returnPath = [] } = options;
  requireInputsOnce([location], options);
  if ([location, ...channels].includes('-') && process.stdin.isTTY === true) {
    throw new UsageError('expected a migration stream on standard input, got a terminal');
  }
  if (channels.length > maxChannels) {
    throw new UsageError(`expected at most ${maxChannels} channels, got ${channels.length}`);
  }
  const found = channels.length > 0 || options.discover === false ? [] : await discoverChannels(location);
  return open(location, { channels: [...channels, ...found], resumeOf, preempt, returnPath, signal });
}

/** Finds the channels of a main stream beside it, and says in a line which are used. */
async function discoverChannels(location: string): Promise<string[]> {
  if (location === '-' || isHttp(location)) return [];
  return reportChannels(location, await findChannels(location));
}

/** Says in a line which channels are used, and which are not. */
function reportChannels(location: string, { channels, refused }: ChosenChannels): string[] {
  const [first] = channels;
  if (first !== undefined) {
    const names = channels.length === 1 ? first : `${first} to ${channels.at(-1)}`;
    note(`${location} is read with ${plural(channels.length, 'channel')}: ${names} (--no-discover reads it alone)`);
  }
  for (const { name, reason } of refused) warn(`${name} is not used as a channel of ${location}: ${reason}`);
  return channels;
}

/** A file of the command line, and its channels. */
export interface InputSet {
  location: string;
  channels: string[];
}

/** Groups files into multifd sets, and says in a line for each which channels are used. */
export async function groupInputs(locations: readonly string[]): Promise<InputSet[]> {
  const isPath = (location: string) => location !== '-' && !isHttp(location);
  const sets = new Map((await groupSets(locations.filter(isPath))).map((set) => [set.path, set]));
  return locations.flatMap((location) => {
    if (!isPath(location)) return [{ location, channels: [] }];
    const set = sets.get(location);
    return set === undefined ? [] : [{ location, channels: reportChannels(location, set) }];
  });
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
