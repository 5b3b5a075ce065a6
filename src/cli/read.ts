/** `vmferry read`: a range of a RAM block, as a hex dump or as bytes. */

import { realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { openScratch } from '../io/node/output-file.ts';
import { openRange, type RamRange } from '../tasks/extract/range.ts';
import { HexDump } from '../words/hex-dump.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { openTarget, parts, writeBytes } from './output.ts';
import { plural, printable } from './print/format.ts';
import { hideProgress } from './progress.ts';
import { UsageError, writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseSize } from './size.ts';

interface ReadOptions extends InputOptions {
  block?: string;
  at?: number;
  length?: number;
  raw?: boolean;
  output?: string;
  json?: boolean;
  scratch: string;
}

export function addRead(program: Command): void {
  addInput(program.command('read'))
    .description("Show a range of a RAM block's final content, as a hex dump or as bytes.")
    .option('--block <IDSTR>', 'the RAM block, such as pc.ram; may be left out where the main RAM is obvious')
    .option('--at <OFFSET>', 'where the range begins in the block (default: 0)', parseSize)
    .option('--length <N>', 'bytes to read (default: 256, or up to the end of the block)', parseSize)
    .option('--raw', 'write the bytes themselves to standard output')
    .option('-o, --output <OUT>', 'write the bytes themselves to OUT; - for standard output')
    .addOption(scratchOption('where more than 16 MiB of a stream are kept while it is read'))
    .option('--json', 'print the range as JSON, its bytes as hex')
    .addHelpText(
      'after',
      `
OFFSET and N are decimal or 0x hex, with an optional suffix K, M, G or T. OFFSET counts from the start of the block,
which is no guest-physical address where RAM is split around a hole.
A stream is read to its end, since later passes overwrite earlier ones; of a mapped-ram file only the range is read.

Examples:
  vmferry read guest.migration
  vmferry read guest.migration --block pc.ram --at 0x7c00 --length 512
  vmferry read guest.migration --at 1M --length 64K --raw | file -
  vmferry read guest.migration --block pc.bios --length 64K -o bios.bin`,
    )
    .action(async (location: string, options: ReadOptions) => {
      const output = options.raw === true ? (options.output ?? '-') : options.output;
      requireOneForm(options, output);
      const makeScratch = () => openScratch(realpathSync(options.scratch));
      await withFile('read', location, options, async (file) => {
        const target = output === undefined || output === '-' ? undefined : openTarget(file, output);
        try {
          const range = await openRange(file, { ...options, makeScratch });
          try {
            warnOfAbsentPages(range);
            if (options.json === true) await printJson(range);
            else if (output === undefined) await printDump(range);
            else if (target === undefined) await writeBytes(range, writeOut);
            else await target.write(range);
          } finally {
            await range.close();
          }
        } catch (error) {
          await target?.abandon();
          throw error;
        }
      });
    });
}

function requireOneForm({ json, raw, output: named }: ReadOptions, output: string | undefined): void {
  if (json === true && output !== undefined) throw new UsageError('expected either --json or the bytes, got both');
  if (raw === true && named !== undefined && named !== '-') {
    throw new UsageError('expected either --raw, to standard output, or -o OUT, got both');
  }
  if (output === '-' && process.stdout.isTTY === true) {
    throw new UsageError('expected a pipe or a file for the bytes, got a terminal; leave out --raw for a hex dump');
  }
}

function warnOfAbsentPages({ block, absentPages = 0 }: RamRange): void {
  if (absentPages === 0) return;
  const what = `${plural(absentPages, 'page')} of ${printable(block.idstr)}`;
  process.stderr.write(`vmferry: warning: ${what} in this range were never sent, so they read as zeros\n`);
}

async function printDump(range: RamRange): Promise<void> {
  const dump = new HexDump(range.at, range.at + range.length);
  const print = (text: string) => {
    hideProgress();
    return writeOut(text);
  };
  for await (const { length, bytes } of range.pieces()) {
    if (bytes === undefined) await print(dump.zeros(length));
    else for (const part of parts(bytes, 64 * 1024)) await print(dump.bytes(part));
  }
  await print(dump.end());
}

async function printJson(range: RamRange): Promise<void> {
  const { block, at, length, absentPages, plan } = range;
  const facts = { block: block.idstr, at, length, absentPages: absentPages ?? null, plan };
  await writeOut(`${JSON.stringify(facts).slice(0, -1)},"hex":"`);
  await writeBytes(range, (bytes) =>
    writeOut(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')),
  );
  await writeOut('"}\n');
}
