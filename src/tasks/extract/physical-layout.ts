/**
 * The guest-physical layout of a machine: which bytes of which RAM block are at which address. This file lays out a PC
 * (docs/formats/x86-memory.md); `board-layout.ts` has the machines whose RAM begins at a fixed address.
 *
 * RAM blocks are not in guest-physical order: RAM that does not fit below the PCI hole continues at 4 GiB. The devices'
 * state and the ACPI tables show where it is split, and the order of several blocks.
 */

import { maxRamBytes, type RamBlock } from '../../vm/ram-block.ts';
import type { AcpiMemory } from './acpi-memory.ts';
import { layOutBoard } from './board-layout.ts';
import {
  findConfigured,
  findVirtioMem,
  type MemoryDevice,
  matchNvdimms,
  paintDevice,
  placeByRule,
  type StatedDevice,
  stateDevices,
} from './memory-devices.ts';
import { MemoryMap, type PhysicalRange } from './memory-map.ts';
import {
  type Chipset,
  countSlots,
  type DeviceBody,
  findHostBridge,
  findShown,
  findVga,
  type HostBridge,
  pciPrefix,
} from './pc-chipset.ts';
import { chooseRam, isBackend } from './ram-blocks.ts';
import { type Above4gFrom, chooseAbove4g, chooseSplit, maxBelow4g, type SplitFrom } from './ram-split.ts';
import type { AddressRange } from './srat.ts';

/** Facts that the file does not state, or states wrongly. */
export interface LayoutOptions {
  /** Bytes of RAM below 4 GiB. */
  below4g?: number;
  /** Address of the RAM that is not below 4 GiB. */
  above4g?: number;
  /** idstrs of the blocks that form the RAM, in the order of their addresses. */
  ram?: readonly string[];
  /** Blocks that have no place otherwise, such as DIMMs, and their guest-physical addresses. */
  dimms?: readonly StatedDevice[];
}

/** The input of a layout. */
export interface LayoutFacts {
  /** Machine type, such as `pc-i440fx-10.0`; undefined if the stream has no configuration. */
  machine: string | undefined;
  blocks: readonly RamBlock[];
  devices: readonly DeviceBody[];
  /** The ACPI tables' description of memory, if there are tables. */
  acpi?: AcpiMemory;
  /** Addresses of memory devices in the configuration of the virtual machine. */
  configured?: readonly StatedDevice[];
}

/** A part of the layout that the file does not decide. It follows the rule that QEMU has for it by default. */
export interface Assumption {
  /**
   * What is assumed: the address of the upper RAM, the size of the lower RAM, the order of the blocks of RAM, or the
   * place of a memory device.
   */
  what: 'above-4g' | 'below-4g' | 'ram-order' | 'memory-device';
  /** idstrs of the blocks that it applies to; none: to the RAM. */
  blocks: string[];
  /** The assumed address, if there is one. */
  address?: number;
  /** The option that states it. */
  option: keyof LayoutOptions;
  /** A sentence without a period. */
  text: string;
}

/** What only the layout of a PC has. */
export interface PcLayout {
  chipset: Chipset;
  /** Bytes of RAM below 4 GiB. */
  below4g: number;
  splitFrom: SplitFrom;
  /** Address of the rest. */
  above4g: number;
  above4gFrom: Above4gFrom;
  /** What the VGA shows at 0xa0000: its registers, its memory, or nothing because RAM is visible there. */
  vgaWindow: 'none' | 'registers' | 'memory';
}

/** The places of blocks and devices in guest-physical memory. The fields of {@link PcLayout} are those of a pc or q35. */
export interface PhysicalLayout extends Partial<PcLayout> {
  /** Bytes of RAM, without memory devices. */
  ramBytes: number;
  /** Memory devices that have a place, ascending by address. */
  memoryDevices: MemoryDevice[];
  /** The end of the highest RAM. */
  ramEnd: number;
  /** Everything that the guest sees, ascending and separate. */
  ranges: PhysicalRange[];
  /** Blocks without a place in the layout, with the reason. */
  unplaced: { block: RamBlock; reason: string }[];
  /** Addresses at which the guest may see memory that the file does not have, with the reason. */
  leftOut: (AddressRange & { reason: string })[];
  /** What the file does not decide. The texts are among the notes. */
  assumed: Assumption[];
  /** Notes about everything uncertain. */
  notes: string[];
}

const fourGiB = 2 ** 32;

const knownMachine = /^(pc-i440fx-|pc-q35-|pc-[01]\.|pc$|q35$)/;

/**
 * Lays out the memory of a machine: a pc or q35, or one of `board-layout.ts`.
 * @throws RangeError for another machine, for RAM in an unknown order, and for impossible options.
 */
export function layOutPhysical(facts: LayoutFacts, options: LayoutOptions = {}): PhysicalLayout {
  const { machine, devices } = facts;
  const bridge = machine === undefined || knownMachine.test(machine) ? findHostBridge(devices) : undefined;
  return bridge === undefined ? layOutBoard(facts, options) : layOutPc(bridge, facts, options);
}

function layOutPc(bridge: HostBridge, facts: LayoutFacts, options: LayoutOptions): PhysicalLayout & PcLayout {
  const { machine, blocks, devices, acpi } = facts;
  const { chipset } = bridge;
  const notes: string[] = [];
  const assumed: Assumption[] = [];
  const ram = chooseRam(facts, options.ram, assumed);
  const ramBytes = ram.reduce((sum, { usedLength }) => sum + usedLength, 0);
  if (ramBytes > maxRamBytes) throw new RangeError(`expected at most ${maxRamBytes} bytes of RAM, got ${ramBytes}`);
  const splitFacts = { chipset, machine, ramBytes, devices, acpi };
  const split = chooseSplit(splitFacts, options, notes, assumed);
  const { below4g } = split;
  const upper = chooseAbove4g(splitFacts, ramBytes - below4g, options, notes, assumed);
  const { above4g } = upper;

  const map = new MemoryMap();
  const isPlaced = new Set<RamBlock>(ram);
  paintFirmware(map, blocks, isPlaced);
  const unplaced = paintPci(map, facts, isPlaced);
  paintRam(map, ram, below4g, above4g);
  const highEnd = above4g + ramBytes - below4g;
  const memoryDevices = placeDevices(facts, options, { isPlaced, highEnd, assumed }).filter((device) => {
    const reason = paintDevice(map, device);
    if (reason !== undefined) unplaced.push({ block: device.block, reason });
    else isPlaced.add(device.block);
    return reason === undefined;
  });
  for (const block of blocks) {
    const isLeft = isBackend(block) && !isPlaced.has(block) && !unplaced.some((each) => each.block === block);
    if (isLeft) unplaced.push({ block, reason: 'the address of a memory device is not in the file' });
  }
  const vgaWindow = paintWindow(map, bridge, facts, ramBytes);
  const hidden = Math.min(bridge.tsegLength, below4g);
  map.clear(below4g - hidden, hidden);
  const deviceEnds = memoryDevices.flatMap(({ address, parts }) =>
    parts.map((part) => address + part.offset + part.length),
  );
  const ramEnd = Math.max(ramBytes > below4g ? highEnd : ramBytes, ...deviceEnds);
  return {
    ...{ chipset, ramBytes, ...split, ...upper, memoryDevices, ramEnd, ranges: map.ranges, vgaWindow },
    unplaced: unplaced.filter(({ block }) => !isPlaced.has(block)),
    leftOut: findLeftOut(facts, memoryDevices),
    ...{ assumed, notes: [...notes, ...assumed.map(({ text }) => text)] },
  };
}

/** Addresses whose memory is not in the file. */
function findLeftOut({ acpi, devices }: LayoutFacts, placed: readonly MemoryDevice[]): PhysicalLayout['leftOut'] {
  const cxl = 'it is a window to CXL memory, whose mapping and content are not in the file';
  const leftOut = (acpi?.cxlWindows ?? []).map((range) => ({ ...range, reason: cxl }));
  const reserved = acpi?.affinity?.deviceMemory;
  if (reserved === undefined || placed.length > 0 || countSlots(devices) !== 0) return leftOut;
  const reason = 'it is reserved for memory devices, and the memory of a virtio-pmem would not be in the file';
  return [{ ...reserved, reason }, ...leftOut];
}

/** The memory devices, ascending by address. */
function placeDevices(
  { blocks, devices, acpi, configured = [] }: LayoutFacts,
  options: LayoutOptions,
  { isPlaced, highEnd, assumed }: { isPlaced: ReadonlySet<RamBlock>; highEnd: number; assumed: Assumption[] },
): MemoryDevice[] {
  const placed = findVirtioMem(blocks, devices);
  const left = () => {
    const taken = new Set(placed.map(({ block }) => block));
    return blocks.filter((block) => !isPlaced.has(block) && !taken.has(block));
  };
  const nvdimms = acpi?.nvdimms ?? [];
  placed.push(...stateDevices(left(), nvdimms, options));
  placed.push(...findConfigured(left().filter(isBackend), nvdimms, configured));
  const free = nvdimms.filter(({ base }) => !placed.some(({ address }) => address === base));
  placed.push(...matchNvdimms(left().filter(isBackend), free, assumed));
  placed.push(...placeByRule(left().filter(isBackend), { devices, acpi, highEnd, known: placed }, assumed));
  return placed.sort((a, b) => a.address - b.address);
}

/** Places the blocks of PCI devices. Returns those whose place is not known. */
function paintPci(
  map: MemoryMap,
  { blocks, devices }: LayoutFacts,
  isPlaced: Set<RamBlock>,
): PhysicalLayout['unplaced'] {
  const unplaced: PhysicalLayout['unplaced'] = [];
  for (const block of blocks) {
    if (pciPrefix(block.idstr) === undefined) continue;
    const shown = findShown(devices, block.idstr);
    if (typeof shown === 'number' && shown + block.usedLength <= 2 ** 52) {
      map.paint({ start: shown, length: block.usedLength, block, offset: 0 });
      isPlaced.add(block);
    } else if (shown === undefined) {
      unplaced.push({ block, reason: 'the address at which its device maps it is not known' });
    }
  }
  return unplaced;
}

/** Places what ends at 4 GiB: the BIOS, or flash memory in its place, the second below the first. */
function paintFirmware(map: MemoryMap, blocks: readonly RamBlock[], placed: Set<RamBlock>): void {
  let end = fourGiB;
  for (const idstr of ['pc.bios', 'system.flash0', 'system.flash1']) {
    const block = blocks.find((each) => each.idstr === idstr);
    if (block === undefined || block.usedLength > end - maxBelow4g) continue;
    end -= block.usedLength;
    const flash = idstr === 'pc.bios' ? {} : ({ isFlash: true } as const);
    map.paint({ start: end, length: block.usedLength, block, offset: 0, ...flash });
    placed.add(block);
  }
}

function paintRam(map: MemoryMap, ram: readonly RamBlock[], below4g: number, above4g: number): void {
  let at = 0;
  for (const block of ram) {
    const low = Math.max(0, Math.min(block.usedLength, below4g - at));
    map.paint({ start: at, length: low, block, offset: 0 });
    const high = above4g + Math.max(0, at - below4g);
    map.paint({ start: high, length: block.usedLength - low, block, offset: low });
    at += block.usedLength;
  }
}

/** Places the VGA, the ROMs and the shadow RAM between 0xa0000 and 0xfffff. */
function paintWindow(
  map: MemoryMap,
  bridge: HostBridge,
  { blocks, devices }: LayoutFacts,
  ramBytes: number,
): PcLayout['vgaWindow'] {
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
