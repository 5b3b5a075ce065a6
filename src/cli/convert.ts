/** `vmferry convert`: a migration in another form. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { convertToMappedRam, convertToStream } from '../file/convert.ts';
import type { MigrationFile } from '../file/open.ts';
import { appendTo, type ByteSink } from '../io/byte-source.ts';
import { isReplaceable, OutputFile, openScratch } from '../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../io/node/output-in-place.ts';
import { open } from '../node.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { encodeLibvirtHead } from '../wire/libvirt-header.ts';
import { openAgain } from './check-again.ts';
import { libvirtText } from './containers.ts';
import { convertChanges } from './convert-changes.ts';
import { printWritten, type Written, warn } from './convert-report.ts';
import { extractInto, refuseInput } from './extract.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
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
  base?: string;
  onlyChangedFrom?: string;
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
    .option(
      '--base <OLD>',
      'with --to stream: send OLD first, an earlier save of the same VM, and then what changed, as deltas',
    )
    .option(
      '--only-changed-from <BASE>',
      'write only the pages that are not as in BASE, an earlier save of the same VM, for `vmferry merge`',
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
libvirt     none says it          a save image: the stream uncompressed, behind XML and cookie of FILE

FILE may be any of these in any encoding, of one pass or many. A stream is written in one pass, or two with --base. Zero
pages become holes or 9 bytes, however FILE has them. Device states go over byte for byte.

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
  vmferry convert guest.mapped-ram guest.save --to libvirt --xml guest.xml
  vmferry convert large.mapped-ram smaller.mapped-ram
  vmferry convert today.mapped-ram both.stream --base yesterday.mapped-ram
  vmferry convert today.mapped-ram today.changes --only-changed-from yesterday.mapped-ram`,
    )
    .action(async (location: string, output: string, options: ConvertOptions) => {
      if (options.onlyChangedFrom !== undefined) {
        return convertChanges(location, options.onlyChangedFrom, output, options);
      }
      const form = chooseForm(output, options);
      if (location === '-' && options.base === '-')
        throw new UsageError('expected two inputs, got standard input twice');
      await withFile('convert', location, options, (file) =>
        withBase(options.base, (base) => convert({ file, base }, output, form, options)),
      );
    });
}

function chooseForm(output: string, { to, block, xml, base, json, dropDescription }: ConvertOptions): Form {
  const suffix = Object.keys(suffixes).find((each) => output.endsWith(each));
  const form = to ?? (suffix === undefined ? undefined : suffixes[suffix]);
  if (form === undefined) {
    throw new UsageError(`expected --to ${forms.join('|')}, since the name ${output} does not say the form`);
  }
  if (form === 'raw' && block === undefined)
    throw new UsageError('expected --block IDSTR: the RAM block of a raw image');
  if (block !== undefined && form !== 'raw') throw new UsageError(`--block goes with --to raw, not with ${form}`);
  if (xml !== undefined && form !== 'libvirt') throw new UsageError(`--xml goes with --to libvirt, not with ${form}`);
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
  const isPipe = output === '-' || !requireFile(output);
  if (isPipe && form === 'mapped-ram') {
    throw new UsageError('a mapped-ram file needs random access: expected the name of a file to write');
  }
  if (!isPipe) for (const input of base === undefined ? [file] : [file, base]) refuseInput(input, output);
  const head = form === 'libvirt' ? findTexts(file, options.xml) : undefined;
  if (form === 'raw') return extractInto(file, options.block as string, output, options);
  if (isPipe) return convertToPipe(inputs, output, head, options);
  // Opened first, so that a place that cannot be written to is known before a long read.
  const target = new OutputFile(output);
  try {
    const written = await convertToFile(inputs, target, form, head, options);
    await target.commit();
    printWritten(written, options.json === true);
  } catch (error) {
    await target.abandon();
    throw error;
  }
}

/** Whether the output is, or will be, a regular file. */
function requireFile(output: string): boolean {
  if (statSync(output, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${output}`);
  }
  return isReplaceable(output);
}

interface Texts {
  xml: string;
  cookie: string | undefined;
  /** As the image says it, where there is one. */
  wasRunning: boolean | undefined;
}

/** The texts of a libvirt save image: those of the input, or of a file. */
function findTexts(file: MigrationFile, path: string | undefined): Texts {
  const image = file.containers.find((container) => container.kind === 'libvirt');
  if (image === undefined && path === undefined) {
    throw new UsageError(
      `expected --xml FILE with the domain's XML, since ${file.source.name} is no libvirt save image`,
    );
  }
  const xml = path === undefined ? libvirtText(file, 'xml') : readFileSync(path, 'utf8');
  if (xml === '' || xml.includes('\0')) throw new UsageError(`expected the XML of a domain in ${path}`);
  return { xml, cookie: image?.data.cookie, wasRunning: image?.header.wasRunning };
}

/** The head of a libvirt save image. Whether the guest ran is known from its states, if the input does not say it. */
function encodeHead({ xml, cookie, wasRunning }: Texts, vm: Pick<SavedVm, 'devices'>): Uint8Array {
  return encodeLibvirtHead({ xml, cookie, format: 'raw', wasRunning: wasRunning ?? ranWhenSaved(vm) });
}

/** What the section globalstate says: be32 length, the runstate's name, NUL. */
function ranWhenSaved({ devices }: Pick<SavedVm, 'devices'>): boolean {
  const state = devices.find(({ name }) => name === 'globalstate')?.data.subarray(4) ?? new Uint8Array();
  return String.fromCharCode(...state.subarray(0, Math.max(0, state.indexOf(0)))) === 'running';
}

async function convertToFile(
  { file, base }: Inputs,
  { file: output, path }: OutputFile,
  form: Form,
  texts: Texts | undefined,
  options: ConvertOptions,
): Promise<Written> {
  const description = options.dropDescription !== true;
  const conversion =
    form === 'mapped-ram'
      ? await convertToMappedRam(file, output, { description })
      : await convertToStream(file, appendTo(output), {
          description,
          makeScratch: () => openScratch(realpathSync(options.scratch)),
          begin: (vm) => (texts === undefined ? undefined : encodeHead(texts, vm)),
          ...(base === undefined ? {} : { base }),
        });
  try {
    if (options.verify) await openAgain(output, (copy) => conversion.check(copy));
    return {
      source: file.source.name,
      output: path,
      form,
      conversion,
      length: output.size,
      isVerified: options.verify,
    };
  } finally {
    await conversion.close();
  }
}

/** Writes a stream in order, to standard output or into what cannot be replaced. It is not undone if it fails midway. */
async function convertToPipe(
  { file, base }: Inputs,
  output: string,
  texts: Texts | undefined,
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
    const conversion = await convertToStream(file, sink, {
      description: options.dropDescription !== true,
      makeScratch: () => openScratch(realpathSync(options.scratch)),
      begin: (vm) => (texts === undefined ? undefined : encodeHead(texts, vm)),
      ...(base === undefined ? {} : { base }),
    });
    await conversion.close();
    warn(conversion);
  } finally {
    await inPlace?.close();
  }
}
