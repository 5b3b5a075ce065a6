/** The command `vmferry convert`: its options and its facts. */
import { Option } from 'commander';
import { libvirtFormats } from '../../read/container/libvirt-header.ts';
import { releaseNames } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { addInput, requireInputsOnce } from '../input.ts';
import { addPartial } from '../partial.ts';
import { scratchOption } from '../scratch.ts';
import { convertChanges, requireChanges } from './changes.ts';
import { convertTo } from './convert.ts';
import { type ConvertOptions, chooseForm, forms } from './form.ts';
import { addMultifdOptions } from './multifd.ts';

export function addConvert(program: CliCommand): CliCommand {
  const command = addInput(program.command('convert'))
    .summary('write a migration in another form')
    .argument('<OUT>', 'the file to write; - for standard output')
    .description(
      'Writes a migration in another form: a plain stream, a multifd set, a mapped-ram file, a raw image, a libvirt save image.',
    );
  return addPartial(addMultifdOptions(addFormOptions(command)), 'OUT is marked as incomplete')
    .option('--drop-description', 'leave out the VM description (QEMU loads the rest with a warning)')
    .option('--no-verify', 'skip the check that reads OUT back and compares it with FILE before OUT gets its name')
    .addOption(scratchOption('where to keep the RAM of a stream that is compressed or cannot be read twice'))
    .option('--json', 'print what was written as JSON')
    .describe({ notes, json, examples, rules })
    .action(async (location: string, output: string, options: ConvertOptions) => {
      const { onlyChangedFrom } = options;
      if (onlyChangedFrom !== undefined) return convertChanges(location, onlyChangedFrom, output, options);
      return convertTo(chooseForm(output, options), location, output, options);
    });
}

/** Options that choose the form of OUT, and those of one form. */
function addFormOptions(command: CliCommand): CliCommand {
  return command
    .addOption(new Option('--to <FORM>', 'the form of OUT; needed unless the suffix of OUT implies it').choices(forms))
    .option('--block <IDSTR>', 'with --to raw: the RAM block, such as pc.ram')
    .option('--xml <FILE>', 'with --to libvirt: the domain XML, instead of that of FILE')
    .addOption(
      new Option('--libvirt-format <FORMAT>', 'with --to libvirt: how the stream is stored (default: raw)').choices(
        libvirtFormats,
      ),
    )
    .option('--direct-io', 'with --to mapped-ram: bypass the page cache when writing pages')
    .option(
      '--base <OLD>',
      'with --to stream: send OLD (an earlier save of the same VM), and then the changes as deltas',
    )
    .option(
      '--only-changed-from <BASE>',
      'write only the pages that differ from BASE, an earlier save of the same VM, for `vmferry merge`',
    )
    .addOption(
      new Option(
        '--compat <VERSION>',
        'with --to stream, multifd or libvirt: the QEMU that will load OUT, if the machine type does not show its version (none, and machine types of distributions)',
      ).choices(releaseNames),
    );
}

const notes = [
  {
    table: [
      ['FORM', 'suffix of OUT', 'use'],
      ['stream', '.stream, .migration', "any QEMU that has the machine type: -incoming 'exec:cat OUT'"],
      ['multifd', '', 'OUT is the main stream; OUT.0, OUT.1 and so on are the channels, one connection each'],
      ['mapped-ram', '.mapped-ram', 'QEMU 9.0 and later with the capability mapped-ram: -incoming file:OUT'],
      ['raw', '.raw', 'one RAM block, as extract writes it'],
      ['libvirt', '', "a save image: XML and cookie of FILE, then the stream in any of libvirt's formats"],
    ],
  },
  'FILE can have any of these forms, in any encoding, with one pass or many. A stream is written in one pass, or in two with --base. Zero pages become holes or records of 9 bytes, however FILE stores them. Device states are copied byte for byte.',
  'OUT can be PATH,offset=N: a stream or mapped-ram file that begins after the first N bytes of PATH. These bytes stay; the rest of PATH is replaced.',
  'OUT appears whole or not at all. Before it gets its name, the command reads it again: it must be sound and have the same blocks, device states and description. RAM is compared page by page, except in a mapped-ram file that was made from a stream. A raw image is not read again, and neither is output to - or a FIFO. For a multifd set, the old OUT is removed first, then the channels get their names, then OUT. So if OUT exists, its channels do, too. Channels of an older, larger set are removed.',
  'A multifd set is for destinations with the machine type that FILE names. If that machine type has no version, --compat must be right: QEMU 10.0 with machine type none loads a set for 7.2 without its RAM, and reports no error.',
  'The command refuses to write a mapped-ram file or a raw image of shared memory that FILE leaves out (x-ignore-shared), a mapped-ram file from a stream without a configuration, and device states from multifd packets (VFIO).',
];

const json = [
  { type: 'ConvertJson', when: '--json' },
  { type: 'ExtractJson', when: '--to raw --json' },
  { type: 'ConvertChangesJson', when: '--only-changed-from BASE --json' },
];

const examples = [
  'vmferry convert guest.migration guest.mapped-ram',
  "vmferry convert guest.mapped-ram - --to stream | ssh host 'cat > guest.migration'",
  'vmferry convert main guest.stream --channel channel0 --channel channel1',
  'vmferry convert /var/lib/libvirt/qemu/save/guest.save guest.stream',
  'vmferry convert guest.mapped-ram guest --to multifd --multifd-channels 4 --multifd-compression zstd',
  'vmferry convert none.stream old.stream --compat 7.2',
  'vmferry convert guest.mapped-ram guest.save --to libvirt --xml guest.xml --libvirt-format zstd',
  'vmferry convert large.mapped-ram smaller.mapped-ram',
  'vmferry convert today.mapped-ram both.stream --base yesterday.mapped-ram',
  'vmferry convert today.mapped-ram today.changes --only-changed-from yesterday.mapped-ram',
];

const rules = {
  excludes: { '--partial': ['--base', '--only-changed-from'] },
  check([location, output = '']: readonly string[], options: ConvertOptions) {
    if (options.onlyChangedFrom !== undefined) return requireChanges(location, output, options);
    chooseForm(output, options);
    requireInputsOnce([location, options.base], options);
  },
};
