/** `vmferry convert`: writes a migration in another form. The command itself is in command.ts. */
import { realpathSync } from 'node:fs';
import { appendTo, type ByteSink } from '../../io/byte-source.ts';
import { type OutputFile, openScratch } from '../../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../../io/node/output-in-place.ts';
import type { MigrationFile } from '../../read/open.ts';
import { convertToMappedRam, convertToStream } from '../../tasks/convert/convert.ts';
import { UsageError } from '../exit-codes.ts';
import { extractInto } from '../extract.ts';
import { openInput, withFile } from '../input.ts';
import { noteInPlace, refuseInput } from '../output.ts';
import { showProgress } from '../progress.ts';
import { writeOut } from '../run.ts';
import { checkAgain } from './check-again.ts';
import type { ConvertOptions, Form, WholeForm } from './form.ts';
import { convertToLibvirt, convertToLibvirtFile, findTexts, type LibvirtTexts, refuseXml } from './libvirt.ts';
import { convertToSet } from './multifd.ts';
import { printWritten, type Report, type Written, warnOfMissing } from './report.ts';
import { isRegularTarget, openTarget, type Place, parseTarget } from './target.ts';

/** Converts a file to the form that was chosen. `report` says what was written; a raw image has a report of its own. */
export async function convertTo(
  form: Form,
  location: string,
  output: string,
  options: ConvertOptions,
  report: Report = printWritten,
): Promise<void> {
  await withFile('convert', location, options, (file) =>
    withBase(options, (base) => convert({ file, base, report }, output, form, options)),
  );
}

/** Converts a file that is open. */
export const convertOpened = (
  file: MigrationFile,
  output: string,
  form: Form,
  options: ConvertOptions,
  report: Report,
): Promise<void> => convert({ file, base: undefined, report }, output, form, options);

/** The file to convert, and the base whose content is sent first. */
interface Inputs {
  file: MigrationFile;
  base: MigrationFile | undefined;
  report: Report;
}

async function withBase(
  { base: location, discover = true }: ConvertOptions,
  work: (base: MigrationFile | undefined) => Promise<void>,
) {
  const base = location === undefined ? undefined : await openInput(location, { discover });
  const progress = base === undefined ? undefined : showProgress('convert', base);
  try {
    await work(base);
  } finally {
    progress?.stop();
    await base?.close();
  }
}

async function convert(inputs: Inputs, output: string, form: Form, options: ConvertOptions): Promise<void> {
  const { file, base, report } = inputs;
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
  if (form === 'multifd') return convertToSet(file, output, options, report);
  if (form === 'raw') return extractInto(file, options.block as string, output, options);
  if (isPipe) return convertToPipe(inputs, output, form, texts, options);
  // Opened first, so that an output that cannot be written fails before a long read.
  const target = await openTarget(place, options.directIo === true);
  try {
    const written = await convertToFile(inputs, target, { ...place, form }, texts, options);
    await target.commit();
    report(written, options.json === true);
  } catch (error) {
    await target.abandon();
    throw error;
  }
}

async function convertToFile(
  inputs: Inputs,
  { file: output }: OutputFile,
  { form, path, offset = 0 }: Place & { form: WholeForm },
  texts: LibvirtTexts | undefined,
  options: ConvertOptions,
): Promise<Written> {
  const { file } = inputs;
  const description = options.dropDescription !== true;
  const conversion =
    form === 'mapped-ram'
      ? await convertToMappedRam(file, output, { description, offset, partial: options.partial === true })
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

const streamOptions = ({ base }: Inputs, { compat, dropDescription, scratch, partial }: ConvertOptions) => ({
  description: dropDescription !== true,
  partial: partial === true,
  makeScratch: () => openScratch(realpathSync(scratch)),
  ...(compat === undefined ? {} : { compat }),
  ...(base === undefined ? {} : { base }),
});

/** Writes a stream in order, to standard output or into something that cannot be replaced. A failure midway is not undone. */
async function convertToPipe(
  inputs: Inputs,
  output: string,
  form: WholeForm,
  texts: LibvirtTexts | undefined,
  options: ConvertOptions,
): Promise<void> {
  let inPlace: SequentialOutput | undefined;
  if (output !== '-') noteInPlace(output);
  let length = 0;
  const sink: ByteSink = {
    async write(bytes) {
      length += bytes.length;
      if (output === '-') return writeOut(bytes);
      // Opened when there is something to write, so that bad input is found first.
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
    if (options.json !== true) return warnOfMissing(conversion);
    inputs.report({ source: inputs.file.source.name, output, form, conversion, length, isVerified: false }, true);
  } finally {
    await inPlace?.close();
  }
}
