/** `vmferry read`: shows a range of a RAM block, as a hex dump or as bytes. */
import { realpathSync } from 'node:fs';
import { openScratch } from '../io/node/output-file.ts';
import type { ContentPiece } from '../store/ram-content.ts';
import { openRange, type RamRange } from '../tasks/extract/range.ts';
import type { ReadJson } from '../tasks/json.ts';
import { HexDump } from '../words/hex-dump.ts';
import type { CliCommand } from './command.ts';
import { UsageError } from './exit-codes.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJsonLine } from './json.ts';
import { warn } from './messages.ts';
import { openTarget, parts, writeBytes } from './output.ts';
import { addPartial, missingFacts, type PartialOption, reportMissing } from './partial.ts';
import { plural } from './print/format.ts';
import { hideProgress } from './progress.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseSize } from './size.ts';

interface ReadOptions extends InputOptions, PartialOption {
  block?: string;
  at?: number;
  length?: number;
  raw?: boolean;
  output?: string;
  json?: boolean;
  scratch: string;
}

export function addRead(program: CliCommand): CliCommand {
  const command = addInput(program.command('read'))
    .summary('show a range of a RAM block')
    .description("Shows a range of a RAM block's final content, as a hex dump or as bytes.")
    .option('--block <IDSTR>', 'the RAM block, such as pc.ram; not needed if the main RAM is obvious')
    .option('--at <OFFSET>', 'where the range begins in the block (default: 0)', parseSize)
    .option('--length <N>', 'bytes to read (default: 256, or up to the end of the block)', parseSize)
    .option('--raw', 'write the bytes themselves to standard output')
    .option('-o, --output <OUT>', 'write the bytes themselves to OUT; - for standard output')
    .addOption(scratchOption('where to keep a range of more than 16 MiB while a stream is read'))
    .option('--json', 'print the range as JSON, its bytes as hex');
  return addPartial(command, 'the dump marks it, and as bytes it is zeros')
    .describe({ notes, json: [{ type: 'ReadJson', when: '--json' }], examples, rules })
    .action(run);
}

const notes = [
  'OFFSET and N are decimal or 0x hex, with an optional suffix K, M, G or T. OFFSET counts from the start of the block. Where RAM is split around a hole, it is not a guest-physical address.',
  'A stream is read to its end, because later passes overwrite earlier ones. For a mapped-ram file, only the range is read.',
];

const examples = [
  'vmferry read guest.migration',
  'vmferry read guest.migration --block pc.ram --at 0x7c00 --length 512',
  'vmferry read guest.migration --at 1M --length 64K --raw | file -',
  'vmferry read guest.migration --block pc.bios --length 64K -o bios.bin',
];

const bytesOutput = ({ raw, output }: ReadOptions) => (raw === true ? (output ?? '-') : output);

const rules = {
  check(_: readonly string[], options: ReadOptions) {
    const { json, raw, output: named } = options;
    const output = bytesOutput(options);
    if (json === true && output !== undefined) throw new UsageError('expected either --json or the bytes, got both');
    if (raw === true && named !== undefined && named !== '-') {
      throw new UsageError('expected either --raw, to standard output, or -o OUT, got both');
    }
    if (output === '-' && process.stdout.isTTY === true) {
      throw new UsageError(
        'expected a pipe or a file for the bytes, got a terminal; without --raw, read prints a hex dump',
      );
    }
  },
};

async function run(location: string, options: ReadOptions): Promise<void> {
  const output = bytesOutput(options);
  const makeScratch = () => openScratch(realpathSync(options.scratch));
  await withFile('read', location, options, async (file) => {
    const target = output === undefined || output === '-' ? undefined : openTarget(file, output);
    try {
      const range = await openRange(file, { ...options, makeScratch, partial: options.partial === true });
      try {
        if (range.missing === undefined) warnOfAbsentPages(range);
        reportMissing(range.missing);
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
}

function warnOfAbsentPages({ block, absentPages = 0 }: RamRange): void {
  if (absentPages === 0) return;
  warn(`${plural(absentPages, 'page')} of ${block.idstr} in this range were never sent, so they read as zeros`);
}

async function printDump(range: RamRange): Promise<void> {
  const dump = new HexDump(range.at, range.at + range.length);
  const print = (text: string) => {
    hideProgress();
    return writeOut(text);
  };
  for await (const { length, bytes, isMissing } of markedPieces(range)) {
    if (isMissing) await print(dump.missing(length));
    else if (bytes === undefined) await print(dump.zeros(length));
    else for (const part of parts(bytes, 64 * 1024)) await print(dump.bytes(part));
  }
  await print(dump.end());
}

/** The pieces of a range, cut where missing pages begin and end. */
async function* markedPieces(range: RamRange): AsyncGenerator<ContentPiece & { isMissing: boolean }, void> {
  const { block, missing } = range;
  const { pageSize } = block;
  let at = range.at;
  for await (const { length, bytes } of range.pieces()) {
    const end = at + length;
    const cut = (to: number, isMissing: boolean) => {
      const piece = { length: to - at, bytes: bytes?.subarray(at - (end - length), to - (end - length)), isMissing };
      at = to;
      return piece;
    };
    for (const run of missing?.within(block, Math.floor(at / pageSize), Math.ceil(end / pageSize)) ?? []) {
      if (run.first * pageSize > at) yield cut(run.first * pageSize, false);
      yield cut(Math.min(end, run.end * pageSize), true);
    }
    if (at < end) yield cut(end, false);
  }
}

async function printJson(range: RamRange): Promise<void> {
  const { block, at, length, absentPages, plan } = range;
  const facts = toJsonLine<Omit<ReadJson, 'hex'>>({
    ...{ block: block.idstr, at, length },
    absentPages: absentPages ?? null,
    plan,
    ...missingFacts(range.missing),
  });
  await writeOut(`${facts.slice(0, -'}\n'.length)},"hex":"`);
  await writeBytes(range, (bytes) =>
    writeOut(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')),
  );
  await writeOut('"}\n');
}
