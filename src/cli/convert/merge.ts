/** `vmferry merge`: combines a base and a file of changes into a whole VM. */
import { realpathSync } from 'node:fs';
import { Option } from 'commander';
import { appendTo } from '../../io/byte-source.ts';
import { isReplaceable, OutputFile, openScratch } from '../../io/node/output-file.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { Conversion } from '../../tasks/convert/convert.ts';
import { mergeToMappedRam, mergeToStream } from '../../tasks/convert/merge.ts';
import type { CliCommand } from '../command.ts';
import { UsageError } from '../exit-codes.ts';
import { discoverOption, openInput, requireInputsOnce } from '../input.ts';
import { refuseInput } from '../output.ts';
import { showProgress } from '../progress.ts';
import { writeOut } from '../run.ts';
import { scratchOption } from '../scratch.ts';
import { checkAgain } from './check-again.ts';
import { printWritten, warnOfMissing } from './report.ts';
import { requireNoOffset } from './target.ts';

const forms = ['stream', 'mapped-ram'] as const;
type Form = (typeof forms)[number];

interface Options {
  to?: Form;
  /** False with --no-verify. */
  verify: boolean;
  discover: boolean;
  scratch: string;
  json?: boolean;
}

export function addMerge(program: CliCommand): CliCommand {
  return program
    .command('merge')
    .summary('combine a base with a file of changes')
    .argument('<BASE>', 'the file that the changes are relative to, in any form; - for standard input')
    .argument('<CHANGES>', 'a file that `vmferry convert NEW CHANGES --only-changed-from BASE` wrote')
    .argument('<OUT>', 'the file to write; - for standard output')
    .description('Combines a base with a file of changes: the result is the VM that the changes were made from.')
    .addOption(
      new Option(
        '--to <FORM>',
        'the form of OUT; by default mapped-ram for .mapped-ram, and stream for .stream, .migration and -',
      ).choices(forms),
    )
    .option(...discoverOption)
    .option('--no-verify', 'skip the check that reads OUT back and compares it before OUT gets its name')
    .addOption(scratchOption('where to keep the RAM of BASE if it is compressed or cannot be read twice'))
    .option('--json', 'print what was written as JSON')
    .describe({ notes, json: [{ type: 'MergeJson', when: '--json' }], examples, rules })
    .action(async (base: string, changes: string, output: string, options: Options) => {
      const form = chooseForm(output, options);
      const { discover } = options;
      const before = await openInput(base, { discover });
      try {
        const file = await openInput(changes, { discover });
        try {
          await merge(before, file, output, form, options);
        } finally {
          await file.close();
        }
      } finally {
        await before.close();
      }
    });
}

const notes = [
  'RAM, devices, configuration and description are those of the VM that the changes were made from. Before it writes anything, the command refuses a base whose content differs from the one that the changes are relative to, and changes whose pages are damaged. Device states have no checksum, as in every migration. BASE is recognised by its content, so its form does not matter: a stream of the same VM works. OUT appears whole or not at all, and cannot be PATH,offset=N.',
  'The result can be the base of the next changes.',
];

const examples = [
  'vmferry convert monday.mapped-ram monday.changes --only-changed-from sunday.mapped-ram',
  'vmferry merge sunday.mapped-ram monday.changes monday-again.mapped-ram',
  "vmferry merge sunday.mapped-ram monday.changes - --to stream | ssh host 'cat > monday.migration'",
];

const rules = {
  check([base, changes, output = '']: readonly string[], options: Options) {
    chooseForm(output, options);
    requireInputsOnce([base, changes]);
  },
};

function chooseForm(output: string, { to, json }: Options): Form {
  requireNoOffset(output, 'the result of merge');
  const named = /\.(stream|migration)$/.test(output) || output === '-' ? 'stream' : undefined;
  const form = to ?? (output.endsWith('.mapped-ram') ? 'mapped-ram' : named);
  if (form === undefined) {
    throw new UsageError(`expected --to ${forms.join('|')}, because the name ${output} does not imply a form`);
  }
  if (output === '-' && json === true) {
    throw new UsageError('expected either --json or the bytes on standard output, got both');
  }
  if (output === '-' && process.stdout.isTTY === true) {
    throw new UsageError('expected a pipe or a file for the bytes, got a terminal');
  }
  if (form === 'mapped-ram' && output === '-') {
    throw new UsageError('a mapped-ram file needs random access: expected the name of a file to write');
  }
  if (output !== '-' && !isReplaceable(output)) {
    throw new UsageError(`expected a regular file to write to, or -, got ${output}`);
  }
  return form;
}

async function merge(
  base: MigrationFile,
  changes: MigrationFile,
  output: string,
  form: Form,
  options: Options,
): Promise<void> {
  const makeScratch = () => openScratch(realpathSync(options.scratch));
  const progress = showProgress('merge', base);
  try {
    if (output === '-') {
      const conversion = await mergeToStream(base, changes, { write: writeOut }, { makeScratch });
      await conversion.close();
      warnOfMissing(conversion);
      return;
    }
    for (const input of [base, changes]) refuseInput(input, output);
    const target = new OutputFile(output);
    try {
      const { file } = target;
      const conversion = await (form === 'stream'
        ? mergeToStream(base, changes, appendTo(file), { makeScratch })
        : mergeToMappedRam(base, changes, file, { makeScratch }));
      progress.stop();
      await checkAndCommit(target, conversion, options.verify);
      const facts = { source: changes.source.name, output: target.path, form, conversion, length: conversion.length };
      printWritten({ ...facts, isVerified: options.verify }, options.json === true);
    } catch (error) {
      await target.abandon();
      throw error;
    }
  } finally {
    progress.stop();
  }
}

async function checkAndCommit(target: OutputFile, conversion: Conversion, isToBeVerified: boolean): Promise<void> {
  try {
    if (isToBeVerified) await checkAgain(conversion, target.file);
  } finally {
    await conversion.close();
  }
  await target.commit();
}
