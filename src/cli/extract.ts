/** `vmferry extract`: writes RAM blocks as raw images, guest-physical memory, or the state of a device. */
import { mkdirSync, readdirSync, realpathSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isReplaceable, OutputFile, openScratch, watchDirectory } from '../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../io/node/output-in-place.ts';
import type { MigrationFile } from '../read/open.ts';
import { planContent } from '../store/content-plan.ts';
import type { MissingRam } from '../store/missing-ram.ts';
import { openSavedVm, readContent } from '../store/ram-content.ts';
import { describeImage, type ExtractedBlock, extractBlocks } from '../tasks/extract/extract.ts';
import type { ExtractJson } from '../tasks/json.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { CliCommand } from './command.ts';
import { list } from './command-facts.ts';
import { extractDevice } from './devices.ts';
import { UsageError } from './exit-codes.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJson } from './json.ts';
import { warn } from './messages.ts';
import { isStandardOutput, noteInPlace, refuseInput, writeBytes } from './output.ts';
import { addPartial, missingFacts, type PartialOption, reportMissing } from './partial.ts';
import { addPhysicalOptions, isPhysical, type PhysicalOptions, writePhysical } from './physical.ts';
import { formatBytes, plural, printable } from './print/format.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';

interface ExtractOptions extends InputOptions, PhysicalOptions, PartialOption {
  block?: string;
  device?: string;
  output?: string;
  all?: string;
  scratch: string;
  json?: boolean;
}

export function addExtract(program: CliCommand): CliCommand {
  const command = addInput(program.command('extract'))
    .summary('write RAM blocks, guest-physical memory or a device to files')
    .description(
      'Writes RAM blocks, guest-physical memory, or a device as JSON. Zero pages and pages that were never sent become holes.',
    )
    .option('--block <IDSTR>', 'the RAM block to write, such as pc.ram')
    .option('-o, --output <OUT>', 'the file to write; - for standard output')
    .option('--all <DIR>', 'write every block to DIR/IDSTR.raw (a / in a name becomes %2F)');
  return addPartial(addPhysicalOptions(command), 'it stays a hole')
    .option('--device <NAME>', 'the device whose state to write as JSON: NAME or NAME#INSTANCE, see inspect --devices')
    .addOption(
      scratchOption(
        'where to keep the RAM of a stream meanwhile, with --physical, with --elf, or if OUT is not a regular file',
      ),
    )
    .option('--json', 'print what was written as JSON')
    .describe({ notes, json, examples, rules })
    .action(async (location: string, options: ExtractOptions) => {
      if (isPhysical(options)) return writePhysical(location, options.output as string, options);
      await withFile('extract', location, options, async (file) => {
        if (options.all !== undefined) return printResult(file, options, await extractAll(file, options.all, options));
        const output = options.output as string;
        if (options.device !== undefined) return extractDevice(file, options.device, output, options.json === true);
        return extractInto(file, options.block as string, output, options);
      });
    });
}

const notes = [
  '--physical and --elf need a machine whose layout is known. It comes from the state of the devices, and the command prints it.',
  'With --paging, gdb takes virtual addresses of the core file. Of x86, AArch64 and 64-bit RISC-V, the page tables are those of the saved RAM. Where CPUs differ, the first one decides.',
  'The output appears whole or not at all. Only the owner can read the files, as with files that QEMU makes.',
];

const json = [
  { type: 'ExtractJson', when: '--block or --all, with --json' },
  { type: 'ExtractPhysicalJson', when: '--physical or --elf, with --json' },
  { type: 'ExtractDeviceJson', when: '--device NAME --json' },
  { type: 'DeviceJson', when: '--device NAME: the content of OUT' },
];

const examples = [
  'vmferry extract guest.migration --block pc.ram -o pc.ram.raw',
  'vmferry extract guest.migration --all ram/',
  'vmferry extract guest.migration --block pc.ram -o - | strings | less',
  'vmferry extract guest.migration --physical -o memory.raw',
  'vmferry extract guest.migration --elf -o guest.core',
  'vmferry extract guest.migration --elf --paging -o guest.core',
  'vmferry extract save.img,offset=4096 --block pc.ram -o pc.ram.raw',
  'vmferry extract guest.migration --device cpu#0 -o - | jq .registers.rip',
  'vmferry extract main --channel channel0 --channel channel1 --all ram/',
];

/** What can be extracted. */
const targets = ['--block', '--all', '--device', '--physical', '--elf'];

const rules = {
  excludes: { '--output': ['--all'], '--scratch': ['--all', '--device'] },
  needs: {
    '--below-4g': ['--physical', '--elf'],
    '--above-4g': ['--physical', '--elf'],
    '--ram': ['--physical', '--elf'],
    '--dimm': ['--physical', '--elf'],
    '--paging': ['--elf'],
    '--cpu': ['--paging'],
    '--cr3': ['--paging'],
  },
  check(_: readonly string[], options: ExtractOptions, isGiven: (flag: string) => boolean) {
    const { block, all, device, physical, elf, output, json } = options;
    const given = [block, all, device, physical, elf].flatMap((value, i) => (value === undefined ? [] : [targets[i]]));
    const expected = `expected one of ${list(targets, 'or')}`;
    if (given.length === 0) throw new UsageError(expected);
    if (given.length > 1) throw new UsageError(`${expected}, got ${list(given as string[], 'and')}`);
    if (all !== undefined) return;
    if (output === undefined) throw new UsageError('expected -o OUT, the file to write');
    const isFile = output !== '-' && isReplaceable(output);
    if (json === true && isStandardOutput(output)) {
      throw new UsageError('expected either --json or the bytes on standard output, got both');
    }
    if (block !== undefined && isFile && isGiven('--scratch')) {
      throw new UsageError('--scratch is not needed to write a block to a regular file');
    }
  },
};

/** Writes one block to a file, a pipe, or standard output, and prints what was written. */
export async function extractInto(
  file: MigrationFile,
  idstr: string,
  output: string,
  options: Pick<ExtractOptions, 'scratch' | 'json'> & PartialOption,
): Promise<void> {
  if (output === '-') {
    await extractToPipe(file, idstr, writeOut, options);
    return;
  }
  if (statSync(output, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${output}`);
  }
  if (isReplaceable(output)) return printResult(file, options, await extractOne(file, idstr, output, options));
  return extractInPlace(file, idstr, output, options);
}

interface Written extends ExtractedBlock {
  path: string;
}

/** The files that were written, and what the input lacks. */
interface Result {
  written: Written[];
  missing: MissingRam | undefined;
}

function printResult(file: MigrationFile, options: Pick<ExtractOptions, 'json'>, result: Result): void {
  reportMissing(result.missing);
  printWritten(options, result, planContent(file, { toOutput: true }));
}

function printWritten(
  options: Pick<ExtractOptions, 'json'>,
  { written, missing }: Result,
  plan: ExtractJson['plan'],
): void {
  for (const { idstr, absentPages } of written) {
    if (absentPages === 0 || missing !== undefined) continue;
    warn(`${plural(absentPages, 'page')} of ${idstr} were never sent, so they read as zeros`);
  }
  if (options.json === true) {
    process.stdout.write(toJson<ExtractJson>({ blocks: written, plan, ...missingFacts(missing) }));
    return;
  }
  for (const { idstr, path, length, dataBytes } of written) {
    const what = `${printable(idstr)}, ${formatBytes(length)}, ${formatBytes(dataBytes)} of it data`;
    process.stdout.write(`${printable(path)}: ${what}\n`);
  }
}

async function extractOne(file: MigrationFile, idstr: string, path: string, options: PartialOption): Promise<Result> {
  refuseInput(file, path);
  // Opened first, so that an output that cannot be written fails before a long read.
  const output = new OutputFile(path);
  const partial = new PartialExtraction(options);
  try {
    const blocks = await extractBlocks(
      file,
      ({ idstr: name }) => (name === idstr ? output.file : undefined),
      (all) => requireBlock(idstr, all),
      partial,
    );
    // A stream without a RAM section does not even have a list of blocks.
    if (blocks.length === 0) requireBlock(idstr, []);
    await output.commit();
    return { written: blocks.map((block) => ({ ...block, path })), missing: partial.missing };
  } catch (error) {
    await output.abandon();
    throw error;
  }
}

/** The options for a partial extraction, and what is then missing. */
class PartialExtraction {
  readonly partial: boolean;
  missing: MissingRam | undefined;

  constructor({ partial }: PartialOption) {
    this.partial = partial === true;
  }

  readonly noteMissing = (missing: MissingRam): void => {
    this.missing = missing;
  };
}

export function requireBlock(idstr: string, blocks: readonly RamBlock[]): void {
  const names = blocks.map((block) => block.idstr);
  if (names.includes(idstr)) return;
  throw new UsageError(`expected a RAM block in the file (${names.join(', ') || 'it has none'}), got "${idstr}"`);
}

/** A block's file name: its idstr, with escapes as in a URL for what a file name cannot contain. */
export function blockFileName(idstr: string): string {
  const toHex = (char: string) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;
  return `${idstr.replace(/[/%\p{Cc}\u0080-\u00ff]/gu, toHex).replace(/^\./, '%2E')}.raw`;
}

async function extractAll(file: MigrationFile, directory: string, options: PartialOption): Promise<Result> {
  const made = makeDirectory(directory);
  const outputs: { idstr: string; output: OutputFile }[] = [];
  const partial = new PartialExtraction(options);
  const open = ({ idstr }: RamBlock) => {
    const path = join(directory, blockFileName(idstr));
    refuseInput(file, path);
    const output = new OutputFile(path);
    outputs.push({ idstr, output });
    return output.file;
  };
  try {
    const blocks = await extractBlocks(file, open, undefined, partial);
    const written: Written[] = [];
    for (const [i, block] of blocks.entries()) {
      const { output } = outputs[i] as { output: OutputFile };
      await output.commit();
      written.push({ ...block, path: output.path });
    }
    made?.keep();
    return { written, missing: partial.missing };
  } catch (error) {
    for (const { output } of outputs) await output.abandon();
    if (made !== undefined && readdirSync(directory).length === 0) rmdirSync(directory);
    made?.keep();
    throw error;
  }
}

/** Makes the directory unless it exists; undefined if it does. */
function makeDirectory(path: string): { keep(): void } | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) return undefined;
  mkdirSync(path);
  return watchDirectory(path);
}

/** Writes a block to a pipe, in address order. Returns what was written, and how it was read. */
async function extractToPipe(
  file: MigrationFile,
  idstr: string,
  write: (bytes: Uint8Array) => Promise<void>,
  { scratch, partial }: Pick<ExtractOptions, 'scratch'> & PartialOption,
): Promise<{ block: ExtractedBlock; missing: MissingRam | undefined; plan: ExtractJson['plan'] }> {
  const isWanted = ({ idstr: name }: RamBlock) => name === idstr;
  const makeScratch = () => openScratch(realpathSync(scratch));
  const { ram, missing, plan } = await openSavedVm(file, {
    makeScratch,
    partial: partial === true,
    only: isWanted,
    endBlocks: (blocks) => requireBlock(idstr, blocks),
  });
  try {
    requireBlock(idstr, ram.blocks);
    reportMissing(missing);
    const block = ram.blocks.find(isWanted) as RamBlock;
    let dataBytes = 0;
    const pieces = async function* () {
      for await (const piece of readContent(ram, block)) {
        if (piece.bytes !== undefined) dataBytes += piece.length;
        yield piece;
      }
    };
    await writeBytes({ length: block.usedLength, pieces }, write);
    const counts = { dataPages: dataBytes / block.pageSize, absentPages: ram.absentPages?.(block) ?? 0 };
    return { block: describeImage(block, counts, missing), missing, plan };
  } finally {
    await ram.close();
  }
}

/** Writes a block into something that cannot be replaced: a FIFO, a device. A failure midway is not undone. */
async function extractInPlace(
  file: MigrationFile,
  idstr: string,
  path: string,
  options: Pick<ExtractOptions, 'scratch' | 'json'> & PartialOption,
): Promise<void> {
  noteInPlace(path);
  let output: SequentialOutput | undefined;
  try {
    // Opened when there is something to write, so that bad input is found first.
    const write = async (bytes: Uint8Array) => {
      output ??= await openInPlace(path);
      await output.write(bytes);
    };
    const { block, missing, plan } = await extractToPipe(file, idstr, write, options);
    if (!isStandardOutput(path)) printWritten(options, { written: [{ ...block, path }], missing }, plan);
  } finally {
    await output?.close();
  }
}
