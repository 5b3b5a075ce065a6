/** The options of `vmferry relay` that encode RAM again for the target. */
import { realpathSync } from 'node:fs';
import { Option } from 'commander';
import { liveThreads, NodeCodecs } from '../../io/node/codecs.ts';
import { openScratch } from '../../io/node/output-file.ts';
import type { RelayOptions as LibraryOptions } from '../../migrate/relay.ts';
import { maxChannels } from '../../read/channels.ts';
import { type ReleaseName, releaseNames } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { uuidDigits } from '../convert/multifd.ts';
import { UsageError } from '../exit-codes.ts';
import { scratchOption } from '../scratch.ts';
import { parseCount } from '../size.ts';

const compressions = ['none', 'zlib', 'zstd'] as const;

export interface EncodingOptions {
  targetMultifdChannels?: number;
  targetMultifdCompression?: (typeof compressions)[number];
  compat?: ReleaseName;
  uuid?: string;
  scratch: string;
}

export function addEncodingOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--target-multifd-channels <N>',
      'send RAM to the target through N multifd channels, whatever the source does',
      parseCount,
    )
    .addOption(
      new Option(
        '--target-multifd-compression <METHOD>',
        'how these channels are compressed (default: none). Without N there are as many as at the source, or 2',
      ).choices(compressions),
    )
    .addOption(
      new Option(
        '--compat <VERSION>',
        'with --target-multifd-*: the QEMU of the target, if the machine type does not show its version',
      ).choices(releaseNames),
    )
    .option('--uuid <UUID>', "with --target-multifd-*: the guest's -uuid, if the source does not send it")
    .addOption(scratchOption('with --target-multifd-*: where to keep the RAM of a source without channels'));
}

const chosen = ['--target-multifd-channels', '--target-multifd-compression'] as const;

/** Options that go with an encoding only. */
export const encodingNeeds = { '--compat': chosen, '--uuid': chosen, '--scratch': chosen };

/** @throws UsageError for options that no target takes */
export function checkEncoding({ targetMultifdChannels: channels = 1, uuid }: EncodingOptions): void {
  if (channels > maxChannels) {
    throw new UsageError(`expected 1 to ${maxChannels} multifd channels, got ${channels}`);
  }
  if (uuid !== undefined && uuidDigits(uuid).length !== 32) {
    throw new UsageError(`expected a UUID such as 01234567-89ab-cdef-0123-456789abcdef, got "${uuid}"`);
  }
}

/** The encoding for the target. Undefined: every byte is passed on as it is. */
export function encodingOf(options: EncodingOptions): LibraryOptions['encoding'] {
  const { targetMultifdChannels: channels, targetMultifdCompression: compression, compat, uuid, scratch } = options;
  if (channels === undefined && compression === undefined) return undefined;
  return {
    ...{ channels, compression, compat, codecs: new NodeCodecs({ threads: liveThreads() }) },
    uuid: uuid === undefined ? undefined : uuidDigits(uuid),
    makeScratch: async () => openScratch(realpathSync(scratch)),
  };
}
