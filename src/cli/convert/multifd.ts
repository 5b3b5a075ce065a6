/** `vmferry convert --to multifd`: a main stream and a file for each channel. */
import { closeSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { Option } from 'commander';
import { appendTo } from '../../io/byte-source.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { isReplaceable, openScratch } from '../../io/node/output-file.ts';
import { OutputSet } from '../../io/node/output-set.ts';
import { levelsOf } from '../../io/page-codec.ts';
import { maxChannels } from '../../read/channels.ts';
import type { MigrationFile } from '../../read/open.ts';
import { namesRelease } from '../../schema/release.ts';
import type { ReleaseName } from '../../schema/release-rules.ts';
import { convertToMultifd } from '../../tasks/convert/convert.ts';
import { helloLength, multifdMagic } from '../../wire/multifd-packet.ts';
import type { CliCommand } from '../command.ts';
import { UsageError } from '../exit-codes.ts';
import { warn } from '../messages.ts';
import { refuseInput } from '../output.ts';
import { parseCount } from '../size.ts';
import { checkAgain } from './check-again.ts';
import type { Report } from './report.ts';

const compressions = ['none', 'zlib', 'zstd'] as const;

export interface MultifdOptions {
  multifdChannels?: number;
  multifdCompression?: (typeof compressions)[number];
  level?: number;
  uuid?: string;
}

export function addMultifdOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--channels, --multifd-channels <N>',
      'with --to multifd: how many channels, 1 to 255 (default: 2)',
      parseCount,
    )
    .addOption(
      new Option(
        '--multifd-compression <METHOD>',
        'with --to multifd: how the channels are compressed (default: none)',
      ).choices(compressions),
    )
    .option('--level <L>', 'with --multifd-compression: 0 to 9 for zlib, 0 to 20 for zstd (default: 1)', parseLevel)
    .option('--uuid <UUID>', "with --to multifd: the guest's -uuid, if FILE does not state it");
}

/** Parses a level. What is not a number becomes NaN, which no method has as a level. */
export const parseLevel = (text: string): number => (/^\d+$/.test(text) ? Number(text) : Number.NaN);

/** @throws UsageError for options that do not go together */
export function checkMultifdOptions(form: string, options: MultifdOptions): void {
  const { multifdChannels: channels = 2, multifdCompression: method = 'none', level, uuid } = options;
  const given = Object.entries({
    '--multifd-channels': options.multifdChannels,
    '--multifd-compression': options.multifdCompression,
    '--level': level,
    '--uuid': uuid,
  }).find(([, value]) => value !== undefined);
  if (form !== 'multifd' && given !== undefined) {
    throw new UsageError(`${given[0]} goes with --to multifd, not with ${form}`);
  }
  if (channels > maxChannels) throw new UsageError(`expected at most ${maxChannels} channels, got ${channels}`);
  if (uuid !== undefined && uuidDigits(uuid).length !== 32) {
    throw new UsageError(`expected a UUID such as 01234567-89ab-cdef-0123-456789abcdef, got "${uuid}"`);
  }
  if (level === undefined) return;
  if (method === 'none') throw new UsageError('--level goes with --multifd-compression zlib or zstd');
  const { least, most } = levelsOf[method];
  if (Number.isInteger(level) && level >= least && level <= most) return;
  throw new UsageError(`expected a level of ${method} from ${least} to ${most}`);
}

/** The hex digits of a UUID; empty if the text is not a UUID. */
export const uuidDigits = (uuid: string): string =>
  /^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i.test(uuid)
    ? uuid.replaceAll('-', '').toLowerCase()
    : '';

interface SetOptions extends MultifdOptions {
  compat?: ReleaseName;
  dropDescription?: boolean;
  partial?: boolean;
  verify: boolean;
  scratch: string;
  json?: boolean;
}

/** Writes a set as OUT, OUT.0, OUT.1 and so on, and prints what was written. */
export async function convertToSet(
  file: MigrationFile,
  output: string,
  options: SetOptions,
  report: Report,
): Promise<void> {
  const paths = Array.from({ length: options.multifdChannels ?? 2 }, (_, i) => `${output}.${i}`);
  const stale = findStale(output, paths.length);
  for (const path of [output, ...paths, ...stale]) refuseInput(file, path);
  for (const path of paths) {
    if (!isReplaceable(path)) throw new UsageError(`expected a file to write a channel to, got ${path}`);
  }
  // Opened first, so that an output that cannot be written fails before a long read.
  const set = new OutputSet(output, paths);
  try {
    const written = await writeSet(file, set, options);
    await set.commit(stale);
    report(written, options.json === true);
  } catch (error) {
    await set.abandon();
    throw error;
  }
}

async function writeSet(file: MigrationFile, { main, others }: OutputSet, options: SetOptions) {
  const { compat, multifdCompression: compression = 'none', level = 1, uuid } = options;
  const sinks = others.map((output) => appendTo(output.file));
  const conversion = await convertToMultifd(file, appendTo(main.file), sinks, {
    ...{ compression, level, codecs: new NodeCodecs() },
    description: options.dropDescription !== true,
    partial: options.partial === true,
    makeScratch: () => openScratch(realpathSync(options.scratch)),
    ...(compat === undefined ? {} : { compat }),
    ...(uuid === undefined ? {} : { uuid: uuidDigits(uuid) }),
  });
  const machine = conversion.vm.configuration?.machine ?? '';
  if (compat === undefined && !namesRelease(machine)) {
    warn(`machine type ${machine} does not say its version: the set is for QEMU 10.0 and later (see --compat)`);
  }
  const channels = others.map(({ file }) => file);
  try {
    if (options.verify) await checkAgain(conversion, main.file, { channels });
    return {
      ...{ source: file.source.name, output: main.path, form: 'multifd' as const, conversion },
      length: main.file.size,
      isVerified: options.verify,
      multifd: { compression, channels: others.map(({ path, file: { size } }) => ({ path, length: size })) },
    };
  } finally {
    await conversion.close();
  }
}

/** Finds channels of an older, larger set of the same name. They would mislead beside a new main file. */
function findStale(output: string, count: number): string[] {
  const stale: string[] = [];
  for (let id = count; id < maxChannels && isChannel(`${output}.${id}`, id); id++) stale.push(`${output}.${id}`);
  return stale;
}

function isChannel(path: string, id: number): boolean {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return false;
  const hello = Buffer.alloc(helloLength);
  const fd = openSync(path, 'r');
  try {
    return readSync(fd, hello) === helloLength && hello.readUInt32BE(0) === multifdMagic && hello[24] === id;
  } finally {
    closeSync(fd);
  }
}
