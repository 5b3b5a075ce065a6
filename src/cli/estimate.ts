/** `vmferry estimate`: what a migration of this VM would be like. */
import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { openScratch } from '../io/node/output-file.ts';
import { NodeCodecs } from '../node.ts';
import type { MigrationFile } from '../read/open.ts';
import { samplePages } from '../tasks/estimate/dirty-rate.ts';
import {
  type Estimate,
  type EstimateOptions,
  type EstimateStep,
  estimate,
  sampleBytes,
} from '../tasks/estimate/estimate.ts';
import { addInput, type InputOptions, openInput, requireInputsOnce } from './input.ts';
import { describeEstimate } from './print/estimate-words.ts';
import { painter } from './print/format.ts';
import { showProgress } from './progress.ts';
import { UsageError, writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseCount, parseRate, parseSize } from './size.ts';

interface EstimateCommandOptions extends InputOptions {
  interval?: number;
  bandwidth?: number;
  downtimeLimit?: number;
  multifdChannels?: number;
  dirtyRate?: number;
  workingSet?: number;
  samplePages?: number;
  sample?: number;
  seed?: number;
  scratch: string;
  json?: boolean;
}

export function addEstimate(program: Command): void {
  addInput(program.command('estimate'))
    .argument('[LATER_FILE]', 'a later save of the same VM, to see how fast it changes; its channels cannot be given')
    .description('What would a migration of this VM be like? Measures its memory, and foretells how long, and whether.')
    .option('--interval <SECONDS>', 'the guest ran so long between FILE and LATER_FILE', parseSeconds)
    .option(
      '--bandwidth <RATE>',
      "max-bandwidth in bytes/s with K, M, G as QEMU's, or as 1gbps (default: 128M, as QEMU's)",
      parseRate,
    )
    .option('--downtime-limit <MS>', "downtime-limit (default: 300, as QEMU's)", parseCount)
    .option('--multifd-channels <N>', "channels that compress, a thread each (default: 2, as QEMU's)", parseCount)
    .option(
      '--dirty-rate <MIB_S>',
      'the guest writes so many MiB/s of different pages, as calc-dirty-rate says',
      parseMiB,
    )
    .option('--working-set <BYTES>', 'with --dirty-rate: all writes are to so many bytes', parseSomeBytes)
    .option(
      '--sample-pages <N>',
      `pages per GiB that the dirty rate is sampled with, ${samplePages.least} to ${samplePages.most} (default: ${samplePages.default}, as QEMU's)`,
      parseCount,
    )
    .option(
      '--sample <BYTES>',
      `bytes of pages to compress, up to ${sampleBytes.most >> 20}M (default: ${sampleBytes.default >> 20}M)`,
      parseSize,
    )
    .option('--seed <N>', 'another number, other samples (default: 1)', parseCount)
    .addOption(
      scratchOption('where the RAM of a stream is kept that has deltas, is compressed, or cannot be read twice'),
    )
    .option('--json', 'print all figures as JSON')
    .addHelpText(
      'after',
      `
Memory, entropy and duplicates are counted; ratio and speed of zlib and zstd are measured on a sample. With LATER_FILE
what changed is counted and encoded as XBZRLE would. Whether a migration converges is found by going through QEMU's own
rules in virtual time. docs/estimate.md says how each figure is made, and what it does not know.

Two saves tell how much the guest writes in the time between, not how often it writes the same. So times are given from
the least to the most that may be, and the figure in the middle is a likely one. calc-dirty-rate's answer, given by
--dirty-rate, narrows that down.

Examples:
  vmferry estimate guest.migration
  vmferry estimate guest.migration --bandwidth 10gbps --multifd-channels 8
  vmferry estimate before.migration after.migration --interval 10 --bandwidth 1gbps
  vmferry estimate guest.mapped-ram --dirty-rate 120 --working-set 2G --downtime-limit 500
  vmferry estimate --json before.migration after.migration --interval 10 | jq '.convergence[].verdict'`,
    )
    .action(async (location: string, laterLocation: string | undefined, options: EstimateCommandOptions) => {
      if (laterLocation !== undefined && options.interval === undefined) {
        throw new UsageError('expected --interval SECONDS: how long the guest ran between the two files');
      }
      if (laterLocation === undefined && options.interval !== undefined) {
        throw new UsageError('--interval goes with a second file, a later save of the same VM');
      }
      requireInputsOnce([location, laterLocation], options);
      if (options.workingSet !== undefined && options.dirtyRate === undefined) {
        throw new UsageError('--working-set goes with --dirty-rate');
      }
      const found = await estimateFiles(location, laterLocation, options);
      const text =
        options.json === true ? JSON.stringify(found, null, 2) : describeEstimate(found, painter(process.stdout));
      await writeOut(`${text}\n`);
    });
}

const verbs: Record<EstimateStep, string> = { read: 'estimate', compress: 'compress a sample of', compare: 'compare' };

async function estimateFiles(
  location: string,
  laterLocation: string | undefined,
  options: EstimateCommandOptions,
): Promise<Estimate> {
  const file = await openInput(location, options);
  let later: MigrationFile | undefined;
  let progress: ReturnType<typeof showProgress> | undefined;
  const begin = (step: EstimateStep) => {
    progress?.stop();
    progress = showProgress(verbs[step], (step === 'compare' ? later : undefined) ?? file);
  };
  try {
    later = laterLocation === undefined ? undefined : await openInput(laterLocation, {});
    return await estimate(file, { ...toOptions(options, later), begin });
  } finally {
    progress?.stop();
    await later?.close();
    await file.close();
  }
}

function toOptions(options: EstimateCommandOptions, later: MigrationFile | undefined): EstimateOptions {
  const { bandwidth, downtimeLimit, multifdChannels: channels, dirtyRate, workingSet, sample, seed } = options;
  return {
    makeScratch: () => openScratch(realpathSync(options.scratch)),
    codecs: new NodeCodecs(),
    clock: () => performance.now(),
    ...(later === undefined ? {} : { later: { file: later, intervalMs: options.interval as number } }),
    ...{ bandwidth, downtimeLimit, channels, dirtyRate, workingSet, sample, seed },
    samplePages: options.samplePages,
  };
}

/** Seconds, as ms. */
function parseSeconds(text: string): number {
  const ms = /^\d+(\.\d+)?$/.test(text) ? Math.round(Number(text) * 1000) : 0;
  if (ms >= 1 && Number.isSafeInteger(ms)) return ms;
  throw new UsageError(`expected seconds above 0, such as 10 or 0.5, got "${text}"`);
}

/** A size that is not 0. */
function parseSomeBytes(text: string): number {
  const size = parseSize(text);
  if (size > 0) return size;
  throw new UsageError(`expected a number of bytes above 0, got "${text}"`);
}

/** MiB, as bytes. */
function parseMiB(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text) && Number(text) < 2 ** 32) return Math.round(Number(text) * 2 ** 20);
  throw new UsageError(`expected a rate in MiB/s, such as 120, got "${text}"`);
}
