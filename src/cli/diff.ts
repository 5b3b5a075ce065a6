/** `vmferry diff`: compares two files. */
import { realpathSync } from 'node:fs';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import type { ContentPlan } from '../store/content-plan.ts';
import { type OpenedVm, openSavedVm } from '../store/ram-content.ts';
import { diffVms, type VmDiff } from '../tasks/diff/diff.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { CliCommand } from './command.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { collect, discoverOption, type InputOptions, openInput, requireInputsOnce } from './input.ts';
import { reportError } from './messages.ts';
import { addPartial, type PartialOption, reportMissing } from './partial.ts';
import { describeDiff, diffToJson } from './print/diff-words.ts';
import { mapCells } from './print/page-map.ts';
import { showProgress } from './progress.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';

/** As with diff(1): 0 the same, 1 not the same, 2 any trouble. */
const differentCode = 1;

/** The most differences per device and ranges per block that are shown without --all. */
const shown = { maxChanges: 20, maxRanges: 100 };
const all = { maxChanges: 100_000, maxRanges: 100_000 };

interface Options extends PartialOption {
  ram?: boolean;
  devices?: boolean;
  all?: boolean;
  channelA?: string[];
  channelB?: string[];
  resumeOfA?: string[];
  resumeOfB?: string[];
  preemptA?: string[];
  preemptB?: string[];
  discover?: boolean;
  scratch: string;
  json?: boolean;
}

export function addDiff(program: CliCommand): CliCommand {
  const command = program
    .command('diff')
    .summary('compare two migrations of a VM')
    .argument('<A>', 'a file of any form that the other commands take; - for standard input')
    .argument('<B>', 'the file to compare with A, in the same form or another')
    .description('Compares two migrations of a VM: pages of RAM, state of devices, configuration.')
    .option('--ram', 'compare RAM; without --devices, only RAM')
    .option('--devices', "compare the devices' state; without --ram, only that")
    .option('--all', 'show all differences, not only the first of each device and block')
    .option(
      '--channel-a <FILE>',
      'A is the main stream of a multifd migration, and this is a channel (repeatable)',
      collect,
    )
    .option(
      '--channel-b <FILE>',
      'B is the main stream of a multifd migration, and this is a channel (repeatable)',
      collect,
    )
    .option('--resume-of-a <FIRST>', 'A continues the postcopy stream FIRST, which broke off (repeatable)', collect)
    .option('--resume-of-b <FIRST>', 'B continues the postcopy stream FIRST, which broke off (repeatable)', collect)
    .option('--preempt-a <FILE>', 'capture of the postcopy-preempt channel of A (repeatable)', collect)
    .option('--preempt-b <FILE>', 'capture of the postcopy-preempt channel of B (repeatable)', collect)
    .option(...discoverOption)
    .addOption(scratchOption('where to keep the RAM of a stream that is compressed or cannot be read twice'))
    .option('--json', 'print everything as JSON');
  return addPartial(command, 'it is not compared')
    .describe({ notes, exitCodes, json: [{ type: 'DiffJson', when: '--json' }], examples, rules })
    .action(async (a: string, b: string, options: Options) => {
      try {
        await run(a, b, options);
      } catch (error) {
        if (!(error instanceof MigrationError)) throw error;
        process.exitCode = reportError(error, ExitCode.trouble);
      }
    });
}

const notes = [
  'A and B can have different forms: a stream and a mapped-ram file of the same VM count as the same. RAM blocks are matched by their names, devices by name and instance, their fields by name. Pages that were never sent count as zero. Differences in how a migration was sent are shown, but do not count: capabilities, the number of passes, the order of sections. Dirty bitmaps of disks are not compared.',
];

const exitCodes = {
  0: 'the same',
  1: 'not the same',
  2: 'trouble: a bad file, wrong usage, or the work failed (as with diff(1))',
};

const examples = [
  'vmferry diff before.migration after.mapped-ram',
  'vmferry diff --devices source.migration destination.migration',
  'vmferry diff guest.mapped-ram recovered.stream --resume-of-b broken-off.stream',
  "vmferry diff --ram --json a.mapped-ram b.mapped-ram | jq '.ram.blocks[] | {idstr, ranges}'",
  'vmferry diff main guest.stream --channel-a channel0 --channel-a channel1',
  'ssh host cat guest.migration | vmferry diff guest.migration -',
];

const rules = {
  check(_: readonly string[], { ram, devices }: Options, isGiven: (flag: string) => boolean) {
    if (devices === true && ram !== true && isGiven('--scratch')) {
      throw new UsageError('--scratch is for RAM, which --devices does not compare');
    }
  },
};

/** The files that belong to A and to B. */
function partsOf(options: Options): [InputOptions, InputOptions] {
  const { channelA, channelB, resumeOfA, resumeOfB, preemptA, preemptB } = options;
  const discover = options.discover !== false;
  const side = (channel: string[] = [], resumeOf: string[] = [], preempt: string[] = []): InputOptions => {
    return { channel, resumeOf, preempt, discover };
  };
  return [side(channelA, resumeOfA, preemptA), side(channelB, resumeOfB, preemptB)];
}

const partLocations = ({ channel = [], resumeOf = [], preempt = [] }: InputOptions): string[] => {
  return [...channel, ...resumeOf, ...preempt];
};

/** Prints the differences, and sets the exit code. */
async function run(a: string, b: string, options: Options): Promise<void> {
  const [partsA, partsB] = partsOf(options);
  requireInputsOnce([a, b, ...partLocations(partsA), ...partLocations(partsB)]);
  const old = await openInput(a, partsA);
  try {
    const now = await openInput(b, partsB);
    try {
      const difference = await compare(old, now, options);
      const names: [string, string] = [old.source.name, now.source.name];
      const pieces = options.json === true ? [diffToJson(difference, names)] : describeDiff(difference, names);
      for (const text of pieces) await writeOut(text);
      process.exitCode = difference.same ? ExitCode.ok : differentCode;
      reportMissing(difference.missing.old, ExitCode.trouble, 'A: ');
      reportMissing(difference.missing.new, ExitCode.trouble, 'B: ');
    } finally {
      await now.close();
    }
  } finally {
    await old.close();
  }
}

/** A difference, and the plans by which the two contents were read. */
type PlannedDiff = VmDiff & { plan: { old: ContentPlan; new: ContentPlan } };

async function compare(old: MigrationFile, now: MigrationFile, options: Options): Promise<PlannedDiff> {
  const [ram, devices] = [options.ram === true, options.devices === true];
  const what = { ram: ram || !devices, devices: devices || !ram };
  const read = async (file: MigrationFile): Promise<OpenedVm> => {
    const progress = showProgress('read', file);
    try {
      const makeScratch = () => openScratch(realpathSync(options.scratch));
      return await openSavedVm(file, {
        makeScratch,
        devices: true,
        only: () => what.ram,
        partial: options.partial === true,
      });
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
