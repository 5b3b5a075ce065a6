/** `vmferry convert`: a migration in another form. */
import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { type Conversion, convertToMappedRam, convertToStream } from '../file/convert.ts';
import { type MigrationFile, openFile } from '../file/open.ts';
import { appendTo, type ByteSink, type ByteSource } from '../io/byte-source.ts';
import { nodeDecompress } from '../io/node/decompress.ts';
import { type OutputFile, openScratch } from '../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../io/node/output-in-place.ts';
import { open } from '../node.ts';
import { type LibvirtFormat, libvirtFormats } from '../wire/libvirt-header.ts';
import { convertToLibvirt, convertToLibvirtFile, findTexts, type LibvirtTexts } from './convert-libvirt.ts';
import { printWritten, type Written, warn } from './convert-report.ts';
import { isRegularTarget, openTarget, type Place, parseTarget } from './convert-target.ts';
import { extractInto, refuseInput } from './extract.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { showProgress } from './progress.ts';
import { UsageError, writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';

const forms = ['stream', 'mapped-ram', 'raw', 'libvirt'] as const;
type Form = (typeof forms)[number];

/** Suffixes that say which form is meant. */
const suffixes: Record<string, Form> = {
  '.stream': 'stream',
  '.migration': 'stream',
  '.mapped-ram': 'mapped-ram',
  '.raw': 'raw',
};

interface ConvertOptions extends InputOptions {
  to?: Form;
  block?: string;
  xml?: string;
  libvirtFormat?: LibvirtFormat;
  directIo?: boolean;
  base?: string;
  dropDescription?: boolean;
  /** False with --no-verify. */
  verify: boolean;
  scratch: string;
  json?: boolean;
}

export function addConvert(program: Command): void {
  addInput(program.command('convert'))
    .argument('<OUT>', 'the file to write; - for standard output')
    .description(
      'Write a migration in another form: a plain stream, a mapped-ram file, a raw image, a libvirt save image.',
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
mapped-ram  .mapped-ram           QEMU 9.0 and later with the capability mapped-ram: -incoming file:OUT
raw         .raw                  one RAM block, as extract writes it
libvirt     none says it          a save image: XML and cookie of FILE, then the stream in any of libvirt's formats

FILE may be any of these in any encoding, of one pass or many. A stream is written in one pass, or two with --base. Zero
pages become holes or 9 bytes, however FILE has them. Device states go over byte for byte.

OUT may be PATH,offset=N: a stream or mapped-ram file behind the first N bytes of PATH, which stay. The rest of PATH goes.

OUT appears whole or not at all, and is read again before: it must be sound, with the same blocks, device states and
description; RAM is compared page by page, but for a mapped-ram file made of a stream. A raw image is not read again, nor
is what went to - or into a FIFO.

Refused: shared memory that FILE leaves out (x-ignore-shared) in a mapped-ram file or a raw image; a stream without a
configuration as a mapped-ram file; states of devices in multifd packets (VFIO).

Examples:
  vmferry convert guest.migration guest.mapped-ram
  vmferry convert guest.mapped-ram - --to stream | ssh host 'cat > guest.migration'
  vmferry convert main guest.stream --channel channel0 --channel channel1
  vmferry convert /var/lib/libvirt/qemu/save/guest.save guest.stream
  vmferry convert guest.mapped-ram guest.save --to libvirt --xml guest.xml --libvirt-format zstd
  vmferry convert large.mapped-ram smaller.mapped-ram
  vmferry convert today.mapped-ram both.stream --base yesterday.mapped-ram`,
    )
    .action(async (location: string, output: string, options: ConvertOptions) => {
      const form = chooseForm(output, options);
      if (location === '-' && options.base === '-')
        throw new UsageError('expected two inputs, got standard input twice');
      await withFile('convert', location, options, (file) =>
        withBase(options.base, (base) => convert({ file, base }, output, form, options)),
      );
    });
}

function chooseForm(output: string, options: ConvertOptions): Form {
  const { to, block, xml, libvirtFormat, directIo, base, json, dropDescription } = options;
  const { path, offset } = parseTarget(output);
  const suffix = Object.keys(suffixes).find((each) => path.endsWith(each));
  const form = to ?? (suffix === undefined ? undefined : suffixes[suffix]);
  if (form === undefined) {
    throw new UsageError(`expected --to ${forms.join('|')}, since the name ${output} does not say the form`);
  }
  if (form === 'raw' && block === undefined)
    throw new UsageError('expected --block IDSTR: the RAM block of a raw image');
  if (block !== undefined && form !== 'raw') throw new UsageError(`--block goes with --to raw, not with ${form}`);
  if (xml !== undefined && form !== 'libvirt') throw new UsageError(`--xml goes with --to libvirt, not with ${form}`);
  if (libvirtFormat !== undefined && form !== 'libvirt') {
    throw new UsageError(`--libvirt-format goes with --to libvirt, not with ${form}`);
  }
  if (directIo === true && form !== 'mapped-ram') {
    throw new UsageError(`--direct-io goes with --to mapped-ram, not with ${form}`);
  }
  if (offset !== undefined && form !== 'stream' && form !== 'mapped-ram') {
    throw new UsageError(`an offset goes with --to stream or mapped-ram, not with ${form}`);
  }
  if (base !== undefined && form !== 'stream') throw new UsageError(`--base goes with --to stream, not with ${form}`);
  if (dropDescription === true && form === 'raw') throw new UsageError('--drop-description: a raw image has none');
  if (output !== '-') return form;
  if (json === true) throw new UsageError('expected either --json or the bytes on standard output, got both');
  if (process.stdout.isTTY === true) throw new UsageError('expected a pipe or a file for the bytes, got a terminal');
  return form;
}

/** What is converted, and what is sent before it. */
interface Inputs {
  file: MigrationFile;
  base: MigrationFile | undefined;
}

async function withBase(location: string | undefined, work: (base: MigrationFile | undefined) => Promise<void>) {
  const base = location === undefined ? undefined : await open(location);
  try {
    await work(base);
  } finally {
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
  if (!isPipe) for (const input of base === undefined ? [file] : [file, base]) refuseInput(input, place.path);
  const texts = form === 'libvirt' ? findTexts(file, options.xml, options.libvirtFormat ?? 'raw') : undefined;
  if (form === 'raw') return extractInto(file, options.block as string, output, options);
  if (isPipe) return convertToPipe(inputs, output, texts, options);
  // Opened first, so that a place that cannot be written to is known before a long read.
  const target = openTarget(place, options.directIo === true);
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
    if (options.verify) await checkAgain(conversion, output, offset);
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

const streamOptions = ({ base }: Inputs, { dropDescription, scratch }: ConvertOptions) => ({
  description: dropDescription !== true,
  makeScratch: () => openScratch(realpathSync(scratch)),
  ...(base === undefined ? {} : { base }),
});

/** Reads what was written. It is not closed by that. */
async function checkAgain(conversion: Conversion, output: ByteSource, offset: number): Promise<void> {
  const source = { ...sourceOf(output), close: async () => {} };
  const copy = await openFile(source, { offset, decompress: nodeDecompress });
  const progress = showProgress('verify', copy);
  try {
    await conversion.check(copy);
  } finally {
    progress.stop();
    await copy.close();
  }
}

const sourceOf = (output: ByteSource): Omit<ByteSource, 'close'> => ({
  name: output.name,
  size: output.size,
  read: (target, position) => output.read(target, position),
});

/** Writes a stream in order, to standard output or into what cannot be replaced. It is not undone if it fails midway. */
async function convertToPipe(
  inputs: Inputs,
  output: string,
  texts: LibvirtTexts | undefined,
  options: ConvertOptions,
): Promise<void> {
  let inPlace: SequentialOutput | undefined;
  if (output !== '-') process.stderr.write(`vmferry: ${output} is no regular file: it is written in place\n`);
  const sink: ByteSink = {
    async write(bytes) {
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
    warn(conversion);
  } finally {
    await inPlace?.close();
  }
}
