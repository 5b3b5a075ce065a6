/** `vmferry diff`: what is not the same in two files? */
import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import type { ContentPlan } from '../store/content-plan.ts';
import { type OpenedVm, openSavedVm } from '../store/ram-content.ts';
import { diffVms, type VmDiff } from '../tasks/diff/diff.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { collect, openInput, requireInputsOnce } from './input.ts';
import { describeDiff, diffToJson } from './print/diff-words.ts';
import { mapCells } from './print/page-map.ts';
import { showProgress } from './progress.ts';
import { ExitCode, reportError, writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';

/** As diff(1): 0 the same, 1 not, and all trouble is 2. */
const differentCode = 1;

/** Differences of each device, and ranges of each block, unless all are wanted. */
const shown = { maxChanges: 20, maxRanges: 100 };
const all = { maxChanges: 100_000, maxRanges: 100_000 };

interface Options {
  ram?: boolean;
  devices?: boolean;
  all?: boolean;
  channelA?: string[];
  channelB?: string[];
  scratch: string;
  json?: boolean;
}

export function addDiff(program: Command): void {
  program
    .command('diff')
    .argument('<A>', 'a file of any form that the other commands take; - for standard input')
    .argument('<B>', 'another, of the same form or not')
    .description('Show what is not the same in two migrations of a VM: pages of RAM, state of devices, configuration.')
    .option('--ram', 'compare RAM, and not the devices')
    .option('--devices', "compare the devices' state, and not RAM")
    .option('--all', 'show all that differs, not the first of each device and block')
    .option('--channel-a <FILE>', 'a channel of the multifd migration whose main stream A is (repeatable)', collect)
    .option('--channel-b <FILE>', 'a channel of the multifd migration whose main stream B is (repeatable)', collect)
    .addOption(
      scratchOption('where the RAM of a stream is kept that has deltas, is compressed, or cannot be read twice'),
    )
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      `
A and B may be of different forms: a stream and a mapped-ram file of one VM are the same. RAM blocks are matched by their
names, devices by name and instance, their fields by name. Pages that were never sent count as zero. How a migration was
sent is shown, but does not count: capabilities, the number of passes, the order of sections. Not compared: dirty bitmaps of
disks. A postcopy migration in several pieces is to be converted first.

Exit codes, as those of diff(1): 0 the same, 1 not the same, 2 trouble: a file that is bad, too.

Examples:
  vmferry diff before.migration after.mapped-ram
  vmferry diff --devices source.migration destination.migration
  vmferry diff --ram --json a.mapped-ram b.mapped-ram | jq '.ram.blocks[] | {idstr, ranges}'
  vmferry diff main guest.stream --channel-a channel0 --channel-a channel1
  ssh host cat guest.migration | vmferry diff guest.migration -`,
    )
    .action(async (a: string, b: string, options: Options) => {
      try {
        process.exitCode = (await run(a, b, options)) ? ExitCode.ok : differentCode;
      } catch (error) {
        if (!(error instanceof MigrationError)) throw error;
        reportError(error);
        process.exitCode = ExitCode.trouble;
      }
    });
}

/** Prints what differs. Returns whether nothing does. */
async function run(a: string, b: string, options: Options): Promise<boolean> {
  requireInputsOnce([a, b, ...(options.channelA ?? []), ...(options.channelB ?? [])]);
  const old = await openInput(a, { channel: options.channelA ?? [] });
  try {
    const now = await openInput(b, { channel: options.channelB ?? [] });
    try {
      const difference = await compare(old, now, options);
      const names: [string, string] = [old.source.name, now.source.name];
      const pieces = options.json === true ? [diffToJson(difference, names)] : describeDiff(difference, names);
      for (const text of pieces) await writeOut(text);
      return difference.same;
    } finally {
      await now.close();
    }
  } finally {
    await old.close();
  }
}

/** A difference, and how the two contents were read for it. */
type PlannedDiff = VmDiff & { plan: { old: ContentPlan; new: ContentPlan } };

async function compare(old: MigrationFile, now: MigrationFile, options: Options): Promise<PlannedDiff> {
  const [ram, devices] = [options.ram === true, options.devices === true];
  const what = { ram: ram || !devices, devices: devices || !ram };
  const read = async (file: MigrationFile): Promise<OpenedVm> => {
    const progress = showProgress('read', file);
    try {
      const makeScratch = () => openScratch(realpathSync(options.scratch));
      return await openSavedVm(file, { makeScratch, devices: true, only: () => what.ram });
    } finally {
      progress.stop();
    }
  };
  const oldVm = await read(old);
  try {
    const newVm = await read(now);
    const progress = showProgress('compare', now);
    try {
      const difference = await diffVms(oldVm, newVm, { ...what, mapCells, ...(options.all === true ? all : shown) });
      return { ...difference, plan: { old: oldVm.plan, new: newVm.plan } };
    } finally {
      progress.stop();
      await newVm.ram.close();
    }
  } finally {
    await oldVm.ram.close();
  }
}
