/** Where the RAM of a PC is split, and where its upper part begins (docs/formats/x86-memory.md, "RAM and the PCI hole"). */
import { releaseOf } from '../../schema/release.ts';
import type { AcpiMemory } from './acpi-memory.ts';
import { alignUp } from './memory-devices.ts';
import { type Chipset, type CmosMemory, type DeviceBody, readCmosMemory } from './pc-chipset.ts';
import type { Assumption, LayoutOptions } from './physical-layout.ts';
import { agrees } from './ram-blocks.ts';
import type { MemoryAffinity } from './srat.ts';

/** How the size of the RAM below 4 GiB is known. */
export type SplitFrom = 'stated' | 'acpi' | 'cmos' | 'machine type';

/** How the address of the RAM above 4 GiB is known. */
export type Above4gFrom = 'stated' | 'acpi' | 'machine type';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const TiB = 2 ** 40;
const fourGiB = 4 * GiB;
/** RAM below 4 GiB ends before the I/O APIC. */
export const maxBelow4g = 0xfec0_0000;

/** The least RAM that is split, and where it is split. */
const splits: Record<Chipset, { from: number; at: number }> = {
  i440fx: { from: 3.5 * GiB, at: 3 * GiB },
  q35: { from: 0xb000_0000, at: 2 * GiB },
};

const hex = (address: number) => `0x${address.toString(16)}`;

/** What decides the split. */
export interface SplitFacts {
  chipset: Chipset;
  machine: string | undefined;
  ramBytes: number;
  devices: readonly DeviceBody[];
  acpi: AcpiMemory | undefined;
}

/** The SRAT, if it describes all of the RAM. */
const wholeAffinity = ({ acpi, ramBytes }: SplitFacts): MemoryAffinity | undefined => {
  const { affinity } = acpi ?? {};
  const total = affinity?.nodes.reduce((sum, { length }) => sum + length, 0);
  return total === ramBytes ? affinity : undefined;
};

/** @throws RangeError for an impossible option */
export function chooseSplit(
  facts: SplitFacts,
  { below4g: stated }: LayoutOptions,
  notes: string[],
  assumed: Assumption[],
): { below4g: number; splitFrom: SplitFrom } {
  const { chipset, ramBytes, devices } = facts;
  const split = splits[chipset];
  const usual = ramBytes >= split.from ? split.at : ramBytes;
  const cmos = readCmosMemory(devices);
  const inCmos = cmos === undefined ? undefined : splitInCmos(cmos, ramBytes);
  const inSrat = wholeAffinity(facts)?.below4g;
  if (stated !== undefined) {
    if (!Number.isSafeInteger(stated) || stated % 4096 !== 0 || stated < MiB || stated > maxBelow4g) {
      throw new RangeError(`expected RAM below 4 GiB of 1 MiB to ${hex(maxBelow4g)}, in pages, got ${stated} bytes`);
    }
    if (stated > ramBytes)
      throw new RangeError(`expected at most all ${ramBytes} bytes of RAM, got ${stated} below 4 GiB`);
    const found = inSrat ?? inCmos;
    if (found !== undefined && found !== stated) {
      const where = inSrat === undefined ? 'the CMOS says' : 'the ACPI tables say';
      notes.push(`${where} that ${hex(found)} bytes of RAM are below 4 GiB, not ${hex(stated)}`);
    }
    return { below4g: stated, splitFrom: 'stated' };
  }
  if (inSrat !== undefined && inSrat <= Math.min(ramBytes, maxBelow4g)) return { below4g: inSrat, splitFrom: 'acpi' };
  if (inCmos !== undefined) return { below4g: inCmos, splitFrom: 'cmos' };
  if (ramBytes > split.at) {
    const text = `the CMOS does not say how RAM is split: ${hex(usual)} bytes below 4 GiB, as ${chipset} has it by default`;
    assumed.push({ what: 'below-4g', blocks: [], option: 'below4g', text });
  }
  return { below4g: usual, splitFrom: 'machine type' };
}

/** The range of the CMOS count of RAM above 4 GiB: 24 bits of 64 KiB. Larger sizes wrap around. */
const cmosAbove = 2 ** 40;

/** Undefined if the CMOS does not agree with the size of RAM. */
function splitInCmos({ below4g, above4g }: CmosMemory, ramBytes: number): number | undefined {
  if (agrees(below4g, ramBytes)) return ramBytes <= maxBelow4g ? ramBytes : undefined;
  const above = ramBytes - below4g;
  return above > 0 && agrees(above4g, above % cmosAbove) && below4g <= maxBelow4g ? below4g : undefined;
}

/** Machine types from 7.1 on keep RAM out of AMD's HyperTransport addresses, which begin here. */
const hyperTransport = 0xfd_0000_0000;
const firstToAvoid = 701;

/** The address of the RAM that is not below 4 GiB. @throws RangeError for an impossible option */
export function chooseAbove4g(
  facts: SplitFacts,
  above: number,
  { above4g: stated }: LayoutOptions,
  notes: string[],
  assumed: Assumption[],
): { above4g: number; above4gFrom: Above4gFrom } {
  const found = findAbove4g(facts, above);
  if (stated !== undefined) {
    const isPage = Number.isSafeInteger(stated) && stated % 4096 === 0;
    if (!isPage || stated < fourGiB || stated + above > 2 ** 52) {
      throw new RangeError(`expected a page's address from ${hex(fourGiB)} on for the upper RAM, got ${stated}`);
    }
    if (typeof found === 'number' && found !== stated && above > 0)
      notes.push(`the ACPI tables say that RAM continues at ${hex(found)}, not at ${hex(stated)}`);
    return { above4g: stated, above4gFrom: 'stated' };
  }
  if (typeof found === 'number') return { above4g: found, above4gFrom: 'acpi' };
  if (found === 'usual') return { above4g: fourGiB, above4gFrom: 'machine type' };
  const above4g = guessAbove4g(facts, above);
  const other = above4g === TiB ? `at ${hex(fourGiB)} unless the CPU is AMD's` : `at ${hex(TiB)} if the CPU is AMD's`;
  const text = `RAM above 4 GiB is assumed to begin at ${hex(above4g)}: the file does not say, and it may be ${other}`;
  assumed.push({ what: 'above-4g', blocks: [], option: 'above4g', address: above4g, text });
  return { above4g, above4gFrom: 'machine type' };
}

/**
 * The address according to the ACPI tables, or whether it is known without them. A machine with a CPU of AMD has its
 * upper RAM at 1 TiB if its highest address would otherwise be in the HyperTransport range. The file does not have the
 * vendor of the CPU. But the PCI bus's addresses are above all memory, and their length counts for the rule.
 */
function findAbove4g(facts: SplitFacts, above: number): number | 'usual' | 'unknown' {
  const { machine, acpi } = facts;
  if (above === 0) return 'usual';
  const inSrat = wholeAffinity(facts)?.above4g;
  if (inSrat !== undefined && Number.isSafeInteger(inSrat) && inSrat + above <= 2 ** 52) return inSrat;
  const release = machine === undefined ? undefined : releaseOf(machine);
  if (release !== undefined && release < firstToAvoid) return 'usual';
  const window = acpi?.pciWindow;
  if (window === undefined) return 'unknown';
  const cxlEnd = Math.max(0, ...(acpi?.cxlWindows ?? []).map(({ base, length }) => base + length));
  const usual = alignUp(fourGiB + above, GiB);
  const moved = alignUp(TiB + above, GiB);
  const highest = Math.max(usual, cxlEnd) + window.length - 1;
  if (highest < hyperTransport) return fourGiB;
  const above4g = [window, ...(acpi?.cxlWindows ?? [])].filter(({ length }) => length > 0);
  if (above4g.some(({ base }) => base < moved)) return fourGiB;
  return above4g.length === 1 && window.base === moved ? TiB : 'unknown';
}

/** Firmware that places 64-bit PCI memory right above the RAM stays within this distance. */
const nearRam = 256 * GiB;

function guessAbove4g({ acpi }: SplitFacts, above: number): number {
  const { base, length } = acpi?.pciWindow ?? { base: 0, length: 0 };
  const moved = alignUp(TiB + above, GiB);
  return length > 0 && base >= moved && base < moved + nearRam ? TiB : fourGiB;
}
