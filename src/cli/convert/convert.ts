/** `vmferry convert`: a migration in another form. */
import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { appendTo, type ByteSink } from '../../io/byte-source.ts';
import { type OutputFile, openScratch } from '../../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../../io/node/output-in-place.ts';
import { open } from '../../node.ts';
import { libvirtFormats } from '../../read/container/libvirt-header.ts';
import type { MigrationFile } from '../../read/open.ts';
import { releaseNames } from '../../schema/release-rules.ts';
import { convertToMappedRam, convertToStream } from '../../tasks/convert/convert.ts';
import { extractInto } from '../extract.ts';
import { addInput, requireInputsOnce, withFile } from '../input.ts';
import { refuseInput } from '../output.ts';
import { showProgress } from '../progress.ts';
import { UsageError, writeOut } from '../run.ts';
import { scratchOption } from '../scratch.ts';
import { convertChanges } from './changes.ts';
import { checkAgain } from './check-again.ts';
import { type ConvertOptions, chooseForm, type Form, forms } from './form.ts';
import { convertToLibvirt, convertToLibvirtFile, findTexts, type LibvirtTexts, refuseXml } from './libvirt.ts';
import { addMultifdOptions, convertToSet } from './multifd.ts';
import { printWritten, type Written, warn } from './report.ts';
import { isRegularTarget, openTarget, type Place, parseTarget } from './target.ts';

export function addConvert(program: Command): void {
  const command = addInput(program.command('convert'))
    .argument('<OUT>', 'the file to write; - for standard output')
    .description(
      'Write a migration in another form: a plain stream, a multifd set, a mapped-ram file, a raw image, a libvirt save image.',
    )
    .addOption(new Option('--to <FORM>', 'the form of OUT; needed unless its suffix says it').choices(forms))
    .option('--block <IDSTR>', 'with --to raw: the RAM block, such as pc.ram')
    .option('--xml <FILE>', 'with --to libvirt: the domain XML, in place of that of the input')
    .addOption(
      new Option('--libvirt-format <FORMAT>', 'with --to libvirt: how the stream is stored, default raw').choices(
        libvirtFormats,
      ),
    )
    .option('--direct-io', 'with --to mapped-ram: write pages past the page cache')
    .option(
      '--base <OLD>',
      'with --to stream: send OLD first, an earlier save of the same VM, and then what changed, as deltas',
    )
    .option(
      '--only-changed-from <BASE>',
      'write only the pages that are not as in BASE, an earlier save of the same VM, for `vmferry merge`',
    )
    .addOption(
      new Option(
        '--compat <VERSION>',
        'with --to stream, multifd or libvirt: the QEMU that is to load it, where its machine type does not tell (none, those of distributions)',
      ).choices(releaseNames),
    );
  addMultifdOptions(command)
    .option('--drop-description', 'leave out the VM description (QEMU loads the rest with a warning)')
    .option('--no-verify', 'do not read OUT again and hold it against FILE before it gets its name')
    .addOption(
      scratchOption('where the RAM of a stream is kept that has deltas, is compressed, or cannot be read twice'),
    )
    .option('--json', 'print what was written as JSON')
    .addHelpText(
      'after',
      `
FORM        suffix of OUT         what it is for
stream      .stream, .migration   any QEMU that knows the machine: -incoming 'exec:cat OUT'
multifd     none says it          the main stream as OUT, RAM as OUT.0, OUT.1 and so on: to be sent over one connection each
mapped-ram  .mapped-ram           QEMU 9.0 and later with the capability mapped-ram: -incoming file:OUT
raw         .raw                  one RAM block, as extract writes it
libvirt     none says it          a save image: XML and cookie of FILE, then the stream in any of libvirt's formats

FILE may be any of these in any encoding, of one pass or many. A stream is written in one pass, or two with --base. Zero
pages become holes or 9 bytes, however FILE has them. Device states go over byte for byte.

OUT may be PATH,offset=N: a stream or mapped-ram file behind the first N bytes of PATH, which stay. The rest of PATH goes.

OUT appears whole or not at all, and is read again before: it must be sound, with the same blocks, device states and
description; RAM is compared page by page, but for a mapped-ram file made of a stream. A raw image is not read again, nor
is what went to - or into a FIFO. Of a multifd set the old OUT is removed, then the channels get their names, OUT last; so
where there is an OUT, its channels are there. Channels of an older set that the new one has not are removed.

A multifd set is for destinations of the machine type that FILE names. Where that says no version, --compat has to be right: a set
for 7.2 leaves a 10.0 of machine type none without its RAM, and no error tells of it.

Refused: shared memory that FILE leaves out (x-ignore-shared) in a mapped-ram file or a raw image; a stream without a
configuration as a mapped-ram file; states of devices in multifd packets (VFIO).

Examples:
  vmferry convert guest.migration guest.mapped-ram
  vmferry convert guest.mapped-ram - --to stream | ssh host 'cat > guest.migration'
  vmferry convert main guest.stream --channel channel0 --channel channel1
  vmferry convert /var/lib/libvirt/qemu/save/guest.save guest.stream
  vmferry convert guest.mapped-ram guest --to multifd --channels 4 --multifd-compression zstd
  vmferry convert none.stream old.stream --compat 7.2
  vmferry convert guest.mapped-ram guest.save --to libvirt --xml guest.xml --libvirt-format zstd
  vmferry convert large.mapped-ram smaller.mapped-ram
  vmferry convert today.mapped-ram both.stream --base yesterday.mapped-ram
  vmferry convert today.mapped-ram today.changes --only-changed-from yesterday.mapped-ram`,
    )
    .action(async (location: string, output: string, options: ConvertOptions) => {
      if (options.onlyChangedFrom !== undefined) {
        return convertChanges(location, options.onlyChangedFrom, output, options);
      }
      const form = chooseForm(output, options);
      requireInputsOnce([location, options.base], options);
      await withFile('convert', location, options, (file) =>
        withBase(options.base, (base) => convert({ file, base }, output, form, options)),
      );
    });
}

/** What is converted, and what is sent before it. */
interface Inputs {
  file: MigrationFile;
  base: MigrationFile | undefined;
}

async function withBase(location: string | undefined, work: (base: MigrationFile | undefined) => Promise<void>) {
  const base = location === undefined ? undefined : await open(location);
  const progress = base === undefined ? undefined : showProgress('convert', base);
  try {
    await work(base);
  } finally {
    progress?.stop();
    await base?.close();
  }
}

async function convert(inputs: Inputs, output: string, form: Form, options: ConvertOptions): Promise<void> {
  const { file, base } = inputs;
  const place = parseTarget(output);
  const isPipe = output === '-' || !isRegularTarget(place);
  if (isPipe && (form === 'mapped-ram' || options.libvirtFormat === 'sparse')) {
    const what = form === 'mapped-ram' ? 'a mapped-ram file' : 'a sparse image';
    throw new UsageError(`${what} needs random access: expected the name of a file to write`);
  }
  if (isPipe && form === 'multifd') {
    throw new UsageError('a multifd set is several files: expected the name of a file to write');
  }
  if (!isPipe) refuseXml(options.xml, place.path);
  if (!isPipe) for (const input of base === undefined ? [file] : [file, base]) refuseInput(input, place.path);
  const texts = form === 'libvirt' ? findTexts(file, options.xml, options.libvirtFormat ?? 'raw') : undefined;
  if (form === 'multifd') return convertToSet(file, output, options);
  if (form === 'raw') return extractInto(file, options.block as string, output, options);
  if (isPipe) return convertToPipe(inputs, output, form, texts, options);
  // Opened first, so that a place that cannot be written to is known before a long read.
  const target = await openTarget(place, options.directIo === true);
  try {
    const written = await convertToFile(inputs, target, { ...place, form }, texts, options);
    await target.commit();
    printWritten(written, options.json === true);
  } catch (error) {
    await target.abandon();
    throw error;
  }
}

async function convertToFile(
  inputs: Inputs,
  { file: output }: OutputFile,
  { form, path, offset = 0 }: Place & { form: Form },
  texts: LibvirtTexts | undefined,
  options: ConvertOptions,
): Promise<Written> {
  const { file } = inputs;
  const description = options.dropDescription !== true;
  const conversion =
    form === 'mapped-ram'
      ? await convertToMappedRam(file, output, { description, offset })
      : texts !== undefined
        ? await convertToLibvirtFile(file, output, texts, streamOptions(inputs, options))
        : await convertToStream(file, appendTo(output, offset), streamOptions(inputs, options));
  try {
    if (options.verify) await checkAgain(conversion, output, { offset });
    const { length } = conversion;
    return {
      ...{ source: file.source.name, output: path, form, conversion },
      ...{ length: offset > 0 ? length : output.size, isVerified: options.verify },
      ...(offset > 0 ? { offset } : {}),
    };
  } finally {
    await conversion.close();
  }
}

const streamOptions = ({ base }: Inputs, { compat, dropDescription, scratch }: ConvertOptions) => ({
  description: dropDescription !== true,
  makeScratch: () => openScratch(realpathSync(scratch)),
  ...(compat === undefined ? {} : { compat }),
  ...(base === undefined ? {} : { base }),
});

/** Writes a stream in order, to standard output or into what cannot be replaced. It is not undone if it fails midway. */
async function convertToPipe(
  inputs: Inputs,
  output: string,
  form: Form,
  texts: LibvirtTexts | undefined,
  options: ConvertOptions,
): Promise<void> {
  let inPlace: SequentialOutput | undefined;
  if (output !== '-') process.stderr.write(`vmferry: ${output} is no regular file: it is written in place\n`);
  let length = 0;
  const sink: ByteSink = {
    async write(bytes) {
      length += bytes.length;
      if (output === '-') return writeOut(bytes);
      // Opened when there is something to write: bad input is found first.
      inPlace ??= await openInPlace(output);
      return inPlace.write(bytes);
    },
  };
  try {
    const conversion =
      texts === undefined
        ? await convertToStream(inputs.file, sink, streamOptions(inputs, options))
        : await convertToLibvirt(inputs.file, sink, texts, streamOptions(inputs, options));
    await conversion.close();
    const written = inPlace;
    inPlace = undefined;
    await written?.close();
    if (options.json !== true) return warn(conversion);
    printWritten({ source: inputs.file.source.name, output, form, conversion, length, isVerified: false }, true);
  } finally {
    await inPlace?.close();
  }
}
