/** `vmferry merge`: a base and what changed since, as a whole VM again. */
import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { appendTo } from '../../io/byte-source.ts';
import { isReplaceable, OutputFile, openScratch } from '../../io/node/output-file.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { Conversion } from '../../tasks/convert/convert.ts';
import { mergeToMappedRam, mergeToStream } from '../../tasks/convert/merge.ts';
import { openInput, requireInputsOnce } from '../input.ts';
import { refuseInput } from '../output.ts';
import { showProgress } from '../progress.ts';
import { UsageError, writeOut } from '../run.ts';
import { scratchOption } from '../scratch.ts';
import { checkAgain } from './check-again.ts';
import { printWritten, warn } from './report.ts';
import { requireNoOffset } from './target.ts';

const forms = ['stream', 'mapped-ram'] as const;
type Form = (typeof forms)[number];

interface Options {
  to?: Form;
  /** False with --no-verify. */
  verify: boolean;
  scratch: string;
  json?: boolean;
}

export function addMerge(program: Command): void {
  program
    .command('merge')
    .argument('<BASE>', 'the file that the changes were made since, in any form; - for standard input')
    .argument('<CHANGES>', 'what `vmferry convert NEW CHANGES --only-changed-from BASE` wrote')
    .argument('<OUT>', 'the file to write; - for standard output')
    .description('Put a base and a file of changes together again: the VM that the changes were made of.')
    .addOption(
      new Option(
        '--to <FORM>',
        'the form of OUT; otherwise mapped-ram if its name ends so, stream for .stream, .migration and -',
      ).choices(forms),
    )
    .option('--no-verify', 'do not read OUT again and hold it against BASE and CHANGES before it gets its name')
    .addOption(scratchOption('where the RAM of BASE is kept if it has deltas, is compressed, or cannot be read twice'))
    .option('--json', 'print what was written as JSON')
    .addHelpText(
      'after',
      `
RAM, devices, configuration and description are those of the VM that the changes were made of. A base with other content than
that which the changes were made since is refused, and so are changes whose pages are damaged, before anything is written; the
states of devices have no checksum, here as in all migrations. BASE may be in another form than it was, since it is known by
its content: a stream of it will do. OUT appears whole or not at all, and is no PATH,offset=N.

What is merged may be the base of the next changes.

Examples:
  vmferry convert monday.mapped-ram monday.changes --only-changed-from sunday.mapped-ram
  vmferry merge sunday.mapped-ram monday.changes monday-again.mapped-ram
  vmferry merge sunday.mapped-ram monday.changes - --to stream | ssh host 'cat > monday.migration'`,
    )
    .action(async (base: string, changes: string, output: string, options: Options) => {
      const form = chooseForm(output, options);
      requireInputsOnce([base, changes]);
      const before = await openInput(base, {});
      try {
        const file = await openInput(changes, {});
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

function chooseForm(output: string, { to, json }: Options): Form {
  requireNoOffset(output, 'what is merged');
  const named = /\.(stream|migration)$/.test(output) || output === '-' ? 'stream' : undefined;
  const form = to ?? (output.endsWith('.mapped-ram') ? 'mapped-ram' : named);
  if (form === undefined) {
    throw new UsageError(`expected --to ${forms.join('|')}, since the name ${output} does not say the form`);
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
      warn(conversion);
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
