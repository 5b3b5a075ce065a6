/** `vmferry read`: shows a range of a RAM block, as a hex dump or as bytes. */
import { realpathSync } from 'node:fs';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import type { MissingRam } from '../store/missing-ram.ts';
import type { AddressSpace } from '../tasks/addresses/address-space.ts';
import { openSpaceRange } from '../tasks/addresses/space-range.ts';
import type { PhysicalOutput } from '../tasks/extract/physical.ts';
import { openRange, type RamRange, readPart } from '../tasks/extract/range.ts';
import type { ReadJson } from '../tasks/json.ts';
import { HexDump } from '../words/hex-dump.ts';
import {
  type AddressFlags,
  addAddressOptions,
  addressKind,
  addressNotes,
  addressRules,
  formatAddress,
  openAddresses,
} from './address-space.ts';
import type { CliCommand } from './command.ts';
import { UsageError } from './exit-codes.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJsonLine } from './json.ts';
import { warn } from './messages.ts';
import { openTarget, writeBytes } from './output.ts';
import { addPartial, missingFacts, type PartialOption, reportMissing } from './partial.ts';
import { plural } from './print/format.ts';
import { type DumpedRange, printDump } from './read-dump.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseAddress, parseSize } from './size.ts';

interface ReadOptions extends InputOptions, PartialOption, AddressFlags {
  block?: string;
  at?: bigint;
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
    .option('--at <OFFSET>', 'where the range begins in the block, or its address (default: 0)', parseAddress)
    .option('--length <N>', 'bytes to read (default: 256, or up to the end of the block)', parseSize)
    .option('--raw', 'write the bytes themselves to standard output')
    .option('-o, --output <OUT>', 'write the bytes themselves to OUT; - for standard output')
    .addOption(scratchOption('where to keep a range of more than 16 MiB while a stream is read'))
    .option('--json', 'print the range as JSON, its bytes as hex');
  addAddressOptions(command, 'OFFSET is');
  return addPartial(command, 'the dump marks it, and as bytes it is zeros')
    .describe({ notes, json: [{ type: 'ReadJson', when: '--json' }], examples, rules })
    .action(run);
}

const notes = [
  'OFFSET and N are decimal or 0x hex, with an optional suffix K, M, G or T. OFFSET counts from the start of the block. It is not a guest-physical address, unless --physical says so.',
  ...addressNotes,
  'A stream is read to its end, because later passes overwrite earlier ones. For a mapped-ram file, only the range is read.',
];

const examples = [
  'vmferry read guest.migration',
  'vmferry read guest.migration --block pc.ram --at 0x7c00 --length 512',
  'vmferry read guest.migration --at 1M --length 64K --raw | file -',
  'vmferry read guest.migration --block pc.bios --length 64K -o bios.bin',
  'vmferry read guest.migration --physical --at 0xfffff000',
  'vmferry read guest.migration --virtual --cpu 1 --at 0xffffffff81000000 --length 64',
];

const bytesOutput = ({ raw, output }: ReadOptions) => (raw === true ? (output ?? '-') : output);

const rules = {
  ...addressRules,
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
  const kind = addressKind(options);
  await withFile('read', location, options, async (file) => {
    const target = output === undefined || output === '-' ? undefined : openTarget(file, output);
    try {
      const read = kind === undefined ? await readBlock(file, options) : await readAddress(file, kind, options);
      try {
        reportMissing(read.missing);
        if (options.json === true) await printJson(read.facts, read);
        else if (output === undefined) await printDump(read.dump, read.ranges);
        else if (target === undefined) await writeBytes(read, writeOut);
        else await target.write(read);
      } finally {
        await read.close();
      }
    } catch (error) {
      await target?.abandon();
      throw error;
    }
  });
}

/** What is shown of a range. */
interface Read extends PhysicalOutput {
  missing: MissingRam | undefined;
  facts: Omit<ReadJson, 'hex' | 'jsonVersion'>;
  dump: HexDump;
  ranges: DumpedRange[];
  close(): Promise<void>;
}

async function readBlock(file: MigrationFile, { at, block, length, partial, scratch }: ReadOptions): Promise<Read> {
  if (at !== undefined && at > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError(`expected an offset below 2^53, got ${formatAddress(at)}; a virtual address needs --virtual`);
  }
  const range = await openRange(file, {
    ...{ makeScratch: () => openScratch(realpathSync(scratch)), partial: partial === true },
    ...(at === undefined ? {} : { at: Number(at) }),
    ...(block === undefined ? {} : { block }),
    ...(length === undefined ? {} : { length }),
  });
  if (range.missing === undefined) warnOfAbsentPages(range);
  const { absentPages, plan, missing } = range;
  return {
    ...{ length: range.length, pieces: () => range.pieces(), missing, ranges: [range] },
    facts: { block: range.block.idstr, at: range.at, length: range.length, absentPages: absentPages ?? null, plan },
    dump: new HexDump(range.at, range.at + range.length),
    close: () => range.close(),
  };
}

async function readAddress(file: MigrationFile, kind: AddressSpace['kind'], options: ReadOptions): Promise<Read> {
  const space = await openAddresses(file, kind, options);
  try {
    const { at: wanted = 0n, length: bytes } = options;
    const { address, length, first, places, missing, pieces } = await openSpaceRange(space, wanted, bytes);
    return {
      ...{ length, pieces, missing },
      facts: {
        ...{ block: first.block.idstr, at: first.offset, address: formatAddress(address), length, absentPages: null },
        plan: space.plan,
      },
      dump: new HexDump(0, length, address),
      ranges: places.map(({ block, offset, length: count }) => ({
        ...{ block, at: offset, missing, pieces: () => readPart(space.content, block, offset, count) },
      })),
      close: () => space.close(),
    };
  } catch (error) {
    await space.close();
    throw error;
  }
}

function warnOfAbsentPages({ block, absentPages = 0 }: RamRange): void {
  if (absentPages === 0) return;
  warn(`${plural(absentPages, 'page')} of ${block.idstr} in this range were never sent, so they read as zeros`);
}

async function printJson(about: Read['facts'], read: Read): Promise<void> {
  const facts = toJsonLine<Omit<ReadJson, 'hex'>>({ ...about, ...missingFacts(read.missing) });
  await writeOut(`${facts.slice(0, -'}\n'.length)},"hex":"`);
  await writeBytes(read, (bytes) =>
    writeOut(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')),
  );
  await writeOut('"}\n');
}
