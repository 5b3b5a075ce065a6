/**
 * The guest-physical layout of a PC (docs/formats/x86-memory.md): which bytes of which RAM block are at which address.
 *
 * RAM blocks are not in guest-physical order: RAM that does not fit below the PCI hole continues at 4 GiB. The devices'
 * state and the ACPI tables show where it is split, and the order of several blocks.
 */

import { maxRamBytes, type RamBlock } from '../../vm/ram-block.ts';
import { MemoryMap, type PhysicalRange } from './memory-map.ts';
import {
  type Chipset,
  type CmosMemory,
  type DeviceBody,
  findHostBridge,
  findShown,
  findVga,
  type HostBridge,
  pciPrefix,
  readCmosMemory,
} from './pc-chipset.ts';
import type { MemoryAffinity, MemoryNode } from './srat.ts';

/** Facts that the file does not state, or states wrongly. */
export interface LayoutOptions {
  /** Bytes of RAM below 4 GiB. */
  below4g?: number;
  /** idstrs of the blocks that form the RAM, in the order of their addresses. */
  ram?: readonly string[];
  /** Memory devices (DIMMs) and their guest-physical addresses. */
  dimms?: readonly { block: string; address: number }[];
}

/** The input of a layout. */
export interface LayoutFacts {
  /** Machine type, such as `pc-i440fx-10.0`; undefined if the stream has no configuration. */
  machine: string | undefined;
  blocks: readonly RamBlock[];
  devices: readonly DeviceBody[];
  /** The ACPI tables' description of memory, if there are tables. */
  affinity?: MemoryAffinity;
}

/** How the size of the RAM below 4 GiB is known. */
export type SplitFrom = 'stated' | 'cmos' | 'machine type';

/** The places of blocks and devices in guest-physical memory. */
export interface PhysicalLayout {
  chipset: Chipset;
  /** Bytes of RAM, without memory devices. */
  ramBytes: number;
  /** Bytes of it below 4 GiB. */
  below4g: number;
  splitFrom: SplitFrom;
  /** The end of the highest RAM. */
  ramEnd: number;
  /** Everything that the guest sees, ascending and separate. */
  ranges: PhysicalRange[];
  /** What the VGA shows at 0xa0000: its registers, its memory, or nothing because RAM is visible there. */
  vgaWindow: 'none' | 'registers' | 'memory';
  /** Blocks without a place in the layout, with the reason. */
  unplaced: { block: RamBlock; reason: string }[];
  /** Notes about everything uncertain. */
  notes: string[];
}

const GiB = 2 ** 30;
const fourGiB = 2 ** 32;
/** RAM below 4 GiB ends before the I/O APIC. */
const maxBelow4g = 0xfec0_0000;

/** The least RAM that is split, and where it is split. */
const splits: Record<Chipset, { from: number; at: number }> = {
  i440fx: { from: 3.5 * GiB, at: 3 * GiB },
  q35: { from: 0xb000_0000, at: 2 * GiB },
};

const knownMachine = /^(pc-i440fx-|pc-q35-|pc-[01]\.|pc$|q35$)/;

const hex = (address: number) => `0x${address.toString(16)}`;

/**
 * Lays out the memory of a pc or q35 machine.
 * @throws RangeError for another machine, for RAM in an unknown order, and for impossible options.
 */
export function layOutPhysical(facts: LayoutFacts, options: LayoutOptions = {}): PhysicalLayout {
  const { machine, blocks, devices } = facts;
  const bridge = machine === undefined || knownMachine.test(machine) ? findHostBridge(devices) : undefined;
  if (bridge === undefined) {
    const got = machine === undefined ? 'a machine without their host bridge' : machine;
    throw new RangeError(`expected a machine pc or q35, whose guest-physical layout is known, got ${got}`);
  }
  const notes: string[] = [];
  const ram = chooseRam(facts, options.ram, notes);
  const ramBytes = ram.reduce((sum, { usedLength }) => sum + usedLength, 0);
  if (ramBytes > maxRamBytes) throw new RangeError(`expected at most ${maxRamBytes} bytes of RAM, got ${ramBytes}`);
  const { below4g, from } = chooseSplit(bridge.chipset, ramBytes, devices, options.below4g, notes);

  const map = new MemoryMap();
  const unplaced: PhysicalLayout['unplaced'] = [];
  const find = (idstr: string) => blocks.find((block) => block.idstr === idstr);
  const isPlaced = new Set<RamBlock>(ram);
  paintFirmware(map, find, isPlaced);
  for (const block of blocks) {
    if (pciPrefix(block.idstr) === undefined) continue;
    isPlaced.add(block);
    const shown = findShown(devices, block.idstr);
    const end = typeof shown === 'number' ? shown + block.usedLength : 0;
    if (typeof shown === 'number' && end <= 2 ** 52)
      map.paint({ start: shown, length: block.usedLength, block, offset: 0 });
    else if (shown === undefined)
      unplaced.push({ block, reason: 'the address at which its device maps it is not known' });
  }
  let ramEnd = paintRam(map, ram, below4g);
  for (const { block: idstr, address } of options.dimms ?? []) {
    const block = find(idstr);
    if (block === undefined || isPlaced.has(block)) {
      throw new RangeError(`expected a memory device's block that has no place yet, got "${idstr}"`);
    }
    ramEnd = Math.max(ramEnd, paintDimm(map, block, address));
    isPlaced.add(block);
  }
  const left = blocks.filter((block) => !isPlaced.has(block) && isBackend(block));
  const first = firstDeviceAddress(facts, options, left);
  for (const block of left) {
    if (first === undefined || map.has(first, block.usedLength)) {
      unplaced.push({ block, reason: 'the address of a memory device is not in the file' });
      continue;
    }
    ramEnd = Math.max(ramEnd, paintDimm(map, block, first));
    notes.push(`${block.idstr} is assumed to be at ${hex(first)}, where QEMU puts the first memory device by default`);
  }
  const vgaWindow = paintWindow(map, bridge, facts, ramBytes);
  const hidden = Math.min(bridge.tsegLength, below4g);
  map.clear(below4g - hidden, hidden);
  return {
    ...{ chipset: bridge.chipset, ramBytes, below4g, splitFrom: from, ramEnd },
    ...{ ranges: map.ranges, vgaWindow, unplaced, notes },
  };
}

/** The address of a memory device if it is the only one and no address was stated. */
function firstDeviceAddress(
  { affinity }: LayoutFacts,
  { dimms = [] }: LayoutOptions,
  [block, ...others]: readonly RamBlock[],
): number | undefined {
  const memory = affinity?.deviceMemory;
  if (memory === undefined || block === undefined || others.length > 0 || dimms.length > 0) return undefined;
  const { base, length } = memory;
  return Number.isSafeInteger(base) && base % block.pageSize === 0 && block.usedLength <= length ? base : undefined;
}

/** Blocks that QEMU creates for a machine besides its RAM. */
const machineBlock = /^(pc\.rom|pc\.bios|isa-bios|system\.flash[01]|\/rom@.*)$/;

/** Whether a block may be RAM or a memory device: QEMU names it `pc.ram` or as the memory backend. */
function isBackend({ idstr }: RamBlock): boolean {
  return !machineBlock.test(idstr) && pciPrefix(idstr) === undefined;
}

function chooseRam(facts: LayoutFacts, stated: readonly string[] | undefined, notes: string[]): RamBlock[] {
  const { blocks, devices, affinity } = facts;
  const backends = blocks.filter((block) => isBackend(block) && block.usedLength > 0);
  const names = backends.map(({ idstr }) => idstr).join(', ');
  if (stated !== undefined && stated.length > 0) {
    return stated.map((idstr, i) => {
      const block = backends.find((each) => each.idstr === idstr);
      if (block !== undefined && stated.indexOf(idstr) === i) return block;
      throw new RangeError(`expected blocks of RAM (${names}), each once, got "${idstr}"`);
    });
  }
  const named = backends.find(({ idstr }) => idstr === 'pc.ram');
  if (named !== undefined) return [named];
  if (backends.length === 1) return backends;
  const ofNodes = matchNodes(backends, affinity?.nodes ?? [], notes);
  if (ofNodes !== undefined) return ofNodes;
  const total = backends.reduce((sum, { usedLength }) => sum + usedLength, 0);
  const cmos = readCmosMemory(devices);
  if (cmos !== undefined && agrees(cmos.below4g + cmos.above4g, total) && new Set(sizesOf(backends)).size === 1) {
    notes.push(`the order of ${names} is not in the file: assumed to be the order in which they were created`);
    return backends;
  }
  const which =
    names === '' ? 'there is no block for it' : `the file does not say which of ${names} are RAM, or in which order`;
  throw new RangeError(`expected to find the machine's RAM: ${which}`);
}

const sizesOf = (blocks: readonly RamBlock[]) => blocks.map(({ usedLength }) => usedLength);

/** The CMOS counts in 64 KiB. */
function agrees(inCmos: number, bytes: number): boolean {
  return inCmos <= bytes && bytes - inCmos < 0x1_0000;
}

/** Finds a block of the right size for each node. Undefined if a node has none. */
function matchNodes(
  backends: readonly RamBlock[],
  nodes: readonly MemoryNode[],
  notes: string[],
): RamBlock[] | undefined {
  const left = [...backends];
  const chosen: RamBlock[] = [];
  for (const { length } of nodes) {
    const at = left.findIndex(({ usedLength }) => usedLength === length);
    if (at === -1) return undefined;
    chosen.push(...left.splice(at, 1));
  }
  if (chosen.length === 0) return undefined;
  const isAmbiguous = (block: RamBlock) =>
    backends.filter(({ usedLength }) => usedLength === block.usedLength).length > 1;
  const alike = chosen.filter(isAmbiguous).map(({ idstr }) => idstr);
  if (alike.length > 0)
    notes.push(`${alike.join(', ')} have the same size as others: taken in the order in which they were created`);
  return chosen;
}

function chooseSplit(
  chipset: Chipset,
  ramBytes: number,
  devices: readonly DeviceBody[],
  stated: number | undefined,
  notes: string[],
): { below4g: number; from: SplitFrom } {
  const split = splits[chipset];
  const usual = ramBytes >= split.from ? split.at : ramBytes;
  const cmos = readCmosMemory(devices);
  const inCmos = cmos === undefined ? undefined : splitInCmos(cmos, ramBytes);
  if (stated !== undefined) {
    if (!Number.isSafeInteger(stated) || stated % 4096 !== 0 || stated < 2 ** 20 || stated > maxBelow4g) {
      throw new RangeError(`expected RAM below 4 GiB of 1 MiB to ${hex(maxBelow4g)}, in pages, got ${stated} bytes`);
    }
    if (stated > ramBytes)
      throw new RangeError(`expected at most all ${ramBytes} bytes of RAM, got ${stated} below 4 GiB`);
    if (inCmos !== undefined && inCmos !== stated) {
      notes.push(`the CMOS says that ${hex(inCmos)} bytes of RAM are below 4 GiB, not ${hex(stated)}`);
    }
    return { below4g: stated, from: 'stated' };
  }
  if (inCmos !== undefined) return { below4g: inCmos, from: 'cmos' };
  if (ramBytes > split.at) {
    notes.push(
      `the CMOS does not say how RAM is split: ${hex(usual)} bytes below 4 GiB, as ${chipset} has it by default`,
    );
  }
  return { below4g: usual, from: 'machine type' };
}

/** The range of the CMOS count of RAM above 4 GiB: 24 bits of 64 KiB. Larger sizes wrap around. */
const cmosAbove = 2 ** 40;

/** Undefined if the CMOS does not agree with the size of RAM. */
function splitInCmos({ below4g, above4g }: CmosMemory, ramBytes: number): number | undefined {
  if (agrees(below4g, ramBytes)) return ramBytes <= maxBelow4g ? ramBytes : undefined;
  const above = ramBytes - below4g;
  return above > 0 && agrees(above4g, above % cmosAbove) && below4g <= maxBelow4g ? below4g : undefined;
}

/** Places what ends at 4 GiB: the BIOS, or flash memory in its place, the second below the first. */
function paintFirmware(map: MemoryMap, find: (idstr: string) => RamBlock | undefined, placed: Set<RamBlock>): void {
  let end = fourGiB;
  for (const idstr of ['pc.bios', 'system.flash0', 'system.flash1']) {
    const block = find(idstr);
    if (block === undefined || block.usedLength > end - maxBelow4g) continue;
    end -= block.usedLength;
    const flash = idstr === 'pc.bios' ? {} : ({ isFlash: true } as const);
    map.paint({ start: end, length: block.usedLength, block, offset: 0, ...flash });
    placed.add(block);
  }
}

/** Returns where it ends. */
function paintRam(map: MemoryMap, ram: readonly RamBlock[], below4g: number): number {
  let at = 0;
  for (const block of ram) {
    const low = Math.max(0, Math.min(block.usedLength, below4g - at));
    map.paint({ start: at, length: low, block, offset: 0 });
    const high = fourGiB + Math.max(0, at - below4g);
    map.paint({ start: high, length: block.usedLength - low, block, offset: low });
    at += block.usedLength;
  }
  return at > below4g ? fourGiB + at - below4g : at;
}

/** Returns where it ends. */
function paintDimm(map: MemoryMap, block: RamBlock, address: number): number {
  const end = address + block.usedLength;
  if (!Number.isSafeInteger(address) || address < 0 || address % block.pageSize !== 0 || end > 2 ** 52) {
    throw new RangeError(`expected a page's address for ${block.idstr}, got ${address}`);
  }
  if (map.has(address, block.usedLength)) {
    throw new RangeError(`expected a free place for ${block.idstr}, got ${hex(address)} to ${hex(end)}`);
  }
  map.paint({ start: address, length: block.usedLength, block, offset: 0 });
  return end;
}

/** Places the VGA, the ROMs and the shadow RAM between 0xa0000 and 0xfffff. */
function paintWindow(
  map: MemoryMap,
  bridge: HostBridge,
  { blocks, devices }: LayoutFacts,
  ramBytes: number,
): PhysicalLayout['vgaWindow'] {
  const rom = romsBelow1m(blocks);
  for (const { start, length, isRam } of bridge.shadow) {
    if (isRam) continue;
    for (const range of rom) {
      const from = Math.max(start, range.start);
      const to = Math.min(start + length, range.start + range.length);
      if (from < to) map.paint({ ...range, start: from, length: to - from, offset: range.offset + from - range.start });
    }
  }
  const vga = findVga(devices);
  if (vga === undefined || (bridge.isSmramOpen && ramBytes >= 0xc0000)) return 'none';
  map.clear(0xa0000, 0x20000);
  const { linear } = vga;
  const block = blocks.find(({ idstr }) => idstr === linear?.block);
  if (linear === undefined || block === undefined || linear.offset >= block.usedLength) return 'registers';
  const { start, offset } = linear;
  map.paint({ start, length: Math.min(linear.length, block.usedLength - offset), block, offset });
  return 'memory';
}

/** The ranges that the PCI bus shows below 1 MiB. */
function romsBelow1m(blocks: readonly RamBlock[]): PhysicalRange[] {
  const roms: PhysicalRange[] = [];
  const add = (idstr: string, end: number, more: Partial<PhysicalRange> = {}) => {
    const block = blocks.find((each) => each.idstr === idstr);
    const length = Math.min(0x2_0000, block?.usedLength ?? 0);
    if (block !== undefined && length > 0)
      roms.push({ start: end - length, length, block, offset: block.usedLength - length, ...more });
    return block !== undefined;
  };
  add('pc.rom', 0xe0000);
  if (!add('pc.bios', 0x10_0000) && !add('isa-bios', 0x10_0000)) add('system.flash0', 0x10_0000, { isFlash: true });
  return roms;
}
