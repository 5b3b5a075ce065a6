/** `vmferry extract`: RAM blocks as raw images. */

import { mkdirSync, readdirSync, realpathSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { isReplaceable, OutputFile, openScratch, watchDirectory } from '../io/node/output-file.ts';
import { openInPlace, type SequentialOutput } from '../io/node/output-in-place.ts';
import type { MigrationFile } from '../read/open.ts';
import { planContent } from '../store/content-plan.ts';
import { openSavedVm, readBytes } from '../store/ram-content.ts';
import { type ExtractedBlock, extractBlocks } from '../tasks/extract/extract.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { extractDevice } from './devices.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { refuseInput } from './output.ts';
import { addPhysicalOptions, isPhysical, type PhysicalOptions, writePhysical } from './physical.ts';
import { formatBytes, plural, printable } from './print/format.ts';
import { UsageError, writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';

interface ExtractOptions extends InputOptions, PhysicalOptions {
  block?: string;
  device?: string;
  output?: string;
  all?: string;
  scratch: string;
  json?: boolean;
}

export function addExtract(program: Command): void {
  const command = addInput(program.command('extract'))
    .description(
      'Write RAM blocks, guest-physical memory, or a device as JSON; pages never sent and zero pages are holes.',
    )
    .option('--block <IDSTR>', 'the RAM block to extract, such as pc.ram')
    .option('-o, --output <OUT>', 'where to write it; - for standard output')
    .option('--all <DIR>', 'write every block to DIR/IDSTR.raw (a / in a name becomes %2F)');
  addPhysicalOptions(command)
    .option('--device <NAME>', 'the device whose state to write as JSON: NAME or NAME#INSTANCE, see inspect --devices')
    .addOption(scratchOption('where `-o -`, --physical and --elf keep the RAM of a stream that must be gathered first'))
    .option('--json', 'print what was written as JSON')
    .addHelpText(
      'after',
      `
--physical and --elf are for pc and q35 machines: what is where is found out from the devices' state, and told.
The output appears whole or not at all. Files are made readable for their owner only, as QEMU makes them.

Examples:
  vmferry extract guest.migration --block pc.ram -o pc.ram.raw
  vmferry extract guest.migration --all ram/
  vmferry extract guest.migration --block pc.ram -o - | strings | less
  vmferry extract guest.migration --physical -o memory.raw
  vmferry extract guest.migration --elf -o guest.core
  vmferry extract save.img,offset=4096 --block pc.ram -o pc.ram.raw
  vmferry extract guest.migration --device cpu#0 -o - | jq .registers.rip
  vmferry extract main --channel channel0 --channel channel1 --all ram/`,
    )
    .action(async (location: string, options: ExtractOptions) => {
      requireOneTarget(options);
      if (isPhysical(options)) return writePhysical(location, options.output as string, options);
      await withFile('extract', location, options, async (file) => {
        if (options.all !== undefined) return printResult(file, options, await extractAll(file, options.all));
        const output = options.output as string;
        if (options.device !== undefined) return extractDevice(file, options.device, output);
        return extractInto(file, options.block as string, output, options);
      });
    });
}

/** Writes one block to a file, a pipe, or standard output, and says so. */
export async function extractInto(
  file: MigrationFile,
  idstr: string,
  output: string,
  options: Pick<ExtractOptions, 'scratch' | 'json'>,
): Promise<void> {
  if (output === '-') return extractToPipe(file, idstr, writeOut, options.scratch);
  if (statSync(output, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${output}`);
  }
  if (isReplaceable(output)) return printResult(file, options, await extractOne(file, idstr, output));
  return extractInPlace(file, idstr, output, options.scratch);
}

/** What can be extracted. */
const targets = ['block', 'all', 'device', 'physical', 'elf'] as const;

function requireOneTarget(options: ExtractOptions): void {
  const list = (names: readonly string[], last: string) =>
    names
      .map((name) => `--${name}`)
      .join(', ')
      .replace(/, ([^,]*)$/, ` ${last} $1`);
  const wanted = targets.filter((name) => options[name] !== undefined);
  const expected = `expected one of ${list(targets, 'or')}`;
  if (wanted.length === 0) throw new UsageError(expected);
  if (wanted.length > 1) throw new UsageError(`${expected}, got ${list(wanted, 'and')}`);
  if (options.all !== undefined && options.output !== undefined) {
    throw new UsageError('expected no -o with --all DIR, got both');
  }
  if (options.all === undefined && options.output === undefined) {
    throw new UsageError('expected -o OUT: where to write it');
  }
}

interface Written extends ExtractedBlock {
  path: string;
}

function printResult(file: MigrationFile, options: Pick<ExtractOptions, 'json'>, written: Written[]): void {
  for (const { idstr, absentPages } of written) {
    if (absentPages === 0) continue;
    const what = `${plural(absentPages, 'page')} of ${printable(idstr)}`;
    process.stderr.write(`vmferry: warning: ${what} were never sent, so they read as zeros\n`);
  }
  if (options.json === true) {
    process.stdout.write(
      `${JSON.stringify({ blocks: written, plan: planContent(file, { toOutput: true }) }, null, 2)}\n`,
    );
    return;
  }
  for (const { idstr, path, length, dataBytes } of written) {
    const what = `${printable(idstr)}, ${formatBytes(length)}, ${formatBytes(dataBytes)} of it data`;
    process.stdout.write(`${printable(path)}: ${what}\n`);
  }
}

async function extractOne(file: MigrationFile, idstr: string, path: string): Promise<Written[]> {
  refuseInput(file, path);
  // Opened first, so that a place that cannot be written to is known before a long read.
  const output = new OutputFile(path);
  try {
    const blocks = await extractBlocks(
      file,
      ({ idstr: name }) => (name === idstr ? output.file : undefined),
      (all) => requireBlock(idstr, all),
    );
    // A stream without a RAM section has not even a list of blocks.
    if (blocks.length === 0) requireBlock(idstr, []);
    if (blocks[0]?.ignored === true) throw ignoredError(idstr);
    await output.commit();
    return blocks.map((block) => ({ ...block, path }));
  } catch (error) {
    await output.abandon();
    throw error;
  }
}

function ignoredError(idstr: string): UsageError {
  return new UsageError(`${printable(idstr)} is ${ignoredMemory}`);
}

export const ignoredMemory =
  'shared memory that the migration left out (x-ignore-shared): its content is not in the file';

export function requireBlock(idstr: string, blocks: readonly RamBlock[]): void {
  const names = blocks.map((block) => block.idstr);
  if (names.includes(idstr)) return;
  throw new UsageError(`expected a RAM block of the file (${names.join(', ') || 'it has none'}), got "${idstr}"`);
}

/** A block's file name: its idstr, with what a file name cannot have escaped as in a URL. */
export function blockFileName(idstr: string): string {
  const toHex = (char: string) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;
  return `${idstr.replace(/[/%\p{Cc}\u0080-\u00ff]/gu, toHex).replace(/^\./, '%2E')}.raw`;
}

async function extractAll(file: MigrationFile, directory: string): Promise<Written[]> {
  const made = makeDirectory(directory);
  const outputs: { idstr: string; output: OutputFile }[] = [];
  try {
    const blocks = await extractBlocks(file, ({ idstr }) => {
      const path = join(directory, blockFileName(idstr));
      refuseInput(file, path);
      const output = new OutputFile(path);
      outputs.push({ idstr, output });
      return output.file;
    });
    const written: Written[] = [];
    for (const [i, block] of blocks.entries()) {
      const { output } = outputs[i] as { output: OutputFile };
      if (block.ignored === true) {
        process.stderr.write(`vmferry: warning: not written: ${printable(block.idstr)} is ${ignoredMemory}\n`);
        await output.abandon();
        continue;
      }
      await output.commit();
      written.push({ ...block, path: output.path });
    }
    made?.keep();
    return written;
  } catch (error) {
    for (const { output } of outputs) await output.abandon();
    if (made !== undefined && readdirSync(directory).length === 0) rmdirSync(directory);
    made?.keep();
    throw error;
  }
}

/** Makes the directory unless it is there; says whether it was made. */
function makeDirectory(path: string): { keep(): void } | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) return undefined;
  mkdirSync(path);
  return watchDirectory(path);
}

/** Writes a block to a pipe, in address order. */
async function extractToPipe(
  file: MigrationFile,
  idstr: string,
  write: (bytes: Uint8Array) => Promise<void>,
  scratch: string,
): Promise<void> {
  const isWanted = ({ idstr: name }: RamBlock) => name === idstr;
  const makeScratch = () => openScratch(realpathSync(scratch));
  const { ram, ignored } = await openSavedVm(file, {
    makeScratch,
    only: isWanted,
    endBlocks: (blocks) => requireBlock(idstr, blocks),
  });
  try {
    requireBlock(idstr, ram.blocks);
    if (ignored.some(isWanted)) throw ignoredError(idstr);
    const block = ram.blocks.find(isWanted) as RamBlock;
    for await (const bytes of readBytes(ram, block)) await write(bytes);
  } finally {
    await ram.close();
  }
}

/** Writes a block into something that cannot be replaced: a FIFO, a device. It is not undone if it fails midway. */
async function extractInPlace(file: MigrationFile, idstr: string, path: string, scratch: string): Promise<void> {
  process.stderr.write(`vmferry: ${path} is no regular file: it is written in place\n`);
  let output: SequentialOutput | undefined;
  try {
    // Opened when there is something to write: bad input is found first.
    const write = async (bytes: Uint8Array) => {
      output ??= await openInPlace(path);
      await output.write(bytes);
    };
    await extractToPipe(file, idstr, write, scratch);
  } finally {
    await output?.close();
  }
}
