/** `vmferry extract --physical` and `--elf`: guest-physical memory as an image or a core file, and its layout. */
import { realpathSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import type { VirtualSegment } from '../tasks/addresses/virtual-segments.ts';
import { openPhysical, type PhysicalMemory } from '../tasks/extract/physical.ts';
import type { LayoutOptions } from '../tasks/extract/physical-layout.ts';
import type { ExtractPhysicalJson } from '../tasks/json.ts';
import type { CliCommand } from './command.ts';
import { collect, type InputOptions, withFile } from './input.ts';
import { toJson } from './json.ts';
import { warn } from './messages.ts';
import { openTarget, writeBytes } from './output.ts';
import { missingFacts, type PartialOption, reportMissing } from './partial.ts';
import { formatBytes, formatHex, formatTable, plural, printable } from './print/format.ts';
import { writeOut } from './run.ts';
import { parseAddress, parseIndex, parseSize } from './size.ts';

/** What the file may not say about the layout of guest-physical memory. */
export interface LayoutFlags {
  below4g?: number;
  above4g?: number;
  ram?: string[];
  dimm?: { block: string; address: number }[];
}

/** The options of `extract` for guest-physical memory. */
export interface PhysicalOptions extends LayoutFlags {
  physical?: boolean;
  elf?: boolean;
  paging?: boolean;
  cpu?: number;
  cr3?: bigint;
}

interface AllOptions extends InputOptions, PhysicalOptions, PartialOption {
  scratch: string;
  json?: boolean;
}

export function addPhysicalOptions(command: CliCommand): CliCommand {
  command
    .option('--physical', 'write the guest-physical memory; byte 0 is address 0')
    .option(
      '--elf',
      'write guest-physical memory as an ELF core file with the registers of all CPUs, as dump-guest-memory does',
    )
    .option('--paging', "give the core file virtual addresses, by the CPUs' page tables")
    .option('--cpu <N>', 'the CPU whose page tables --paging uses (default: all)', parseIndex)
    .option('--cr3 <ADDRESS>', "use these page tables instead of the CPU's own", parseAddress);
  return addLayoutOptions(command);
}

/** The options that state what the file may not say. */
export function addLayoutOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--below-4g <SIZE>',
      'how much RAM is below 4 GiB, if the file does not state it (max-ram-below-4g)',
      parseSize,
    )
    .option(
      '--above-4g <ADDRESS>',
      'where the RAM continues that is not below 4 GiB, if the file does not say',
      parseSize,
    )
    .option('--ram <BLOCK>', 'a block that is RAM (repeatable, in the order of their addresses)', collect)
    .option(
      '--dimm <BLOCK@ADDRESS>',
      'the address of a block without a place, such as a DIMM (repeatable)',
      collectDimm,
    );
}

function collectDimm(value: string, list: LayoutFlags['dimm'] = []): LayoutFlags['dimm'] {
  const at = value.lastIndexOf('@');
  if (at < 1) throw new InvalidArgumentError('Expected BLOCK@ADDRESS.');
  return [...list, { block: value.slice(0, at), address: parseSize(value.slice(at + 1)) }];
}

/** Whether guest-physical memory is requested. */
export const isPhysical = ({ physical, elf }: PhysicalOptions): boolean => physical === true || elf === true;

export async function writePhysical(location: string, output: string, options: AllOptions): Promise<void> {
  const { elf } = options;
  const makeScratch = () => openScratch(realpathSync(options.scratch));
  await withFile('extract', location, options, async (file) => {
    const target = output === '-' ? undefined : openTarget(file, output);
    try {
      const memory = await openPhysical(file, { makeScratch, partial: options.partial === true, ...layoutOf(options) });
      try {
        warnOf(memory);
        reportMissing(memory.missing);
        const written = elf === true ? memory.core(await mappedOf(memory, options)) : memory.image();
        for (const text of (written as Written).warnings ?? []) warn(text);
        if (target === undefined) await writeBytes(written, writeOut);
        else {
          await target.write(written);
          if (options.json === true) printJson(file, memory, written, output);
          else printRanges(memory, written, output);
        }
      } finally {
        await memory.close();
      }
    } catch (error) {
      await target?.abandon();
      throw error;
    }
  });
}

async function mappedOf(
  memory: PhysicalMemory,
  { paging, cpu, cr3 }: AllOptions,
): Promise<VirtualSegment[] | undefined> {
  if (paging !== true) return undefined;
  const mapped = await memory.mapped({ ...(cpu === undefined ? {} : { cpu }), ...(cr3 === undefined ? {} : { cr3 }) });
  if (mapped === undefined) warn('no CPU translates addresses, so virtual addresses are guest-physical ones');
  return mapped;
}

type Written = ReturnType<PhysicalMemory['image']> & Partial<ReturnType<PhysicalMemory['core']>>;

/** The option that states what is assumed. */
const flags = { below4g: '--below-4g', above4g: '--above-4g', ram: '--ram', dimms: '--dimm' } as const;

/** What the options state. */
export function layoutOf({ below4g, above4g, ram, dimm: dimms }: LayoutFlags): LayoutOptions {
  return {
    ...(below4g === undefined ? {} : { below4g }),
    ...(above4g === undefined ? {} : { above4g }),
    ...(ram === undefined ? {} : { ram }),
    ...(dimms === undefined ? {} : { dimms }),
  };
}

function warnOf({ layout, absentPages, missing }: PhysicalMemory): void {
  warnOfLayout(layout);
  for (const { block, pages } of missing === undefined ? absentPages : []) {
    warn(`${plural(pages, 'page')} of ${block.idstr} were never sent, so they read as zeros`);
  }
}

/** Warns of what is assumed, and of what has no address. */
export function warnOfLayout({ assumed, notes, leftOut, unplaced }: PhysicalMemory['layout']): void {
  for (const note of notes) {
    const option = assumed.find(({ text }) => text === note)?.option;
    warn(option === undefined ? note : `${note}; ${flags[option]} states it`);
  }
  for (const { base, length, reason } of leftOut) {
    warn(`${formatHex(base)} to ${formatHex(base + length - 1)} is left out: ${reason}`);
  }
  for (const { block, reason } of unplaced) {
    warn(`${block.idstr} (${formatBytes(block.usedLength)}) is left out: ${reason}`);
  }
}

/** The ranges that are in the output. */
function shownRanges({ layout }: PhysicalMemory, { segments }: Written): PhysicalMemory['layout']['ranges'] {
  if (segments !== undefined) return layout.ranges.filter(({ isFlash }) => isFlash !== true);
  return layout.ranges
    .filter(({ start }) => start < layout.ramEnd)
    .map((range) => ({ ...range, length: Math.min(range.length, layout.ramEnd - range.start) }));
}

function printJson(file: MigrationFile, memory: PhysicalMemory, written: Written, path: string): void {
  const { ranges: _, memoryDevices, unplaced, ...layout } = memory.layout;
  const report = {
    source: file.source.name,
    path,
    length: written.length,
    machine: memory.machine,
    ...layout,
    memoryDevices: memoryDevices.map((device) => ({ ...device, block: device.block.idstr })),
    ...(written.cpus === undefined ? {} : { cpus: written.cpus }),
    ranges: shownRanges(memory, written).map(({ block, ...range }) => ({ ...range, block: block.idstr })),
    unplaced: unplaced.map(({ block, reason }) => ({ block: block.idstr, length: block.usedLength, reason })),
    absentPages: memory.absentPages.map(({ block, pages }) => ({ block: block.idstr, pages })),
    plan: memory.plan,
    ...missingFacts(memory.missing),
  };
  process.stdout.write(toJson<ExtractPhysicalJson>(report));
}

const splitWords = {
  stated: 'as stated',
  acpi: 'by the ACPI tables',
  cmos: 'by the CMOS',
  'machine type': 'by the machine type',
} as const;

/** How the RAM of a PC is split around its hole below 4 GiB. */
function splitOf({ ramBytes, below4g, splitFrom, above4g, above4gFrom }: PhysicalMemory['layout']): string[] {
  if (below4g === undefined || splitFrom === undefined || above4g === undefined || above4gFrom === undefined) return [];
  const split = `${formatBytes(below4g)} below 4 GiB ${splitWords[splitFrom]}`;
  if (above4g === 2 ** 32 || below4g === ramBytes) return [split];
  return [split, `the rest from ${formatHex(above4g)} on ${splitWords[above4gFrom]}`];
}

function printRanges(memory: PhysicalMemory, written: Written, path: string): void {
  const { layout, machine } = memory;
  const what = written.cpus === undefined ? 'physical memory' : `core of ${plural(written.cpus, 'CPU')}`;
  const named = printable(machine ?? layout.chipset ?? 'a machine without a name');
  const lines = [
    `${printable(path)}: ${[what, named, `${formatBytes(layout.ramBytes)} of RAM`, ...splitOf(layout)].join(', ')}`,
  ];
  const rows = shownRanges(memory, written).map(({ start, length, block, offset, isFlash }) => [
    formatHex(start),
    formatHex(start + length - 1),
    formatBytes(length),
    `${printable(block.idstr)}${isFlash === true ? ' (flash)' : ''}`,
    formatHex(offset),
  ]);
  lines.push(
    formatTable([['first', 'last', 'size', 'block', 'offset'], ...rows], ['right', 'right', 'right', 'left', 'right']),
  );
  if (layout.vgaWindow === 'registers') lines.push('  0xa0000 to 0xbffff are registers of the VGA, not memory');
  process.stdout.write(`${lines.join('\n')}\n`);
}
