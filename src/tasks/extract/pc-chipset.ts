/**
 * Facts about a PC's memory from the state of its devices
 *
 * They are read from the bodies, whose first fields are fixed. So a stream without a description is enough, except for
 * the VGA's mode.
 */
import type { DeviceState } from '../../devices/device-state.ts';
import { isStruct, type StateStruct, type StateValue } from '../../devices/device-state.ts';
import { findValue } from '../../devices/find-value.ts';

/** The chipset of a PC machine. */
export type Chipset = 'i440fx' | 'q35';

/** The used parts of a device's state. */
export type DeviceBody = Pick<DeviceState, 'name' | 'data' | 'state'>;

/** A piece of the window below 1 MiB that a register governs. */
interface ShadowPiece {
  start: number;
  length: number;
  /** RAM is visible there. Otherwise the PCI bus is visible, and RAM where the bus has nothing. */
  isRam: boolean;
}

export interface HostBridge {
  chipset: Chipset;
  /** 0xc0000 to 0xfffff, by the PAM registers. */
  shadow: ShadowPiece[];
  /** RAM is visible at 0xa0000 instead of the VGA (SMRAM register, D_OPEN). */
  isSmramOpen: boolean;
  /** Bytes at the end of the RAM below 4 GiB that only system management mode sees (q35). */
  tsegLength: number;
}

/** A PCI device's state begins with be32 version and its configuration space. */
const configOffset = 4;
const configBytes = 256;

interface BridgeFacts {
  name: string;
  /** Vendor and device. */
  id: number;
  pam: number;
  smram: number;
  /** ESMRAMC. */
  tseg: number | undefined;
}

const bridges: Record<Chipset, BridgeFacts> = {
  i440fx: { name: 'I440FX', id: 0x8086_1237, pam: 0x59, smram: 0x72, tseg: undefined },
  q35: { name: 'mch', id: 0x8086_29c0, pam: 0x90, smram: 0x9d, tseg: 0x9e },
};

/** The configuration space in a PCI device's body. */
function configOf({ data }: DeviceBody): DataView | undefined {
  if (data.length < configOffset + configBytes) return undefined;
  return new DataView(data.buffer, data.byteOffset + configOffset, configBytes);
}

/** Vendor and device as one number, vendor first. */
function idOf(config: DataView): number {
  return config.getUint16(0, true) * 0x1_0000 + config.getUint16(2, true);
}

/** Undefined if there is no host bridge of a PC, or if its state is unexpected. */
export function findHostBridge(devices: readonly DeviceBody[]): HostBridge | undefined {
  for (const device of devices) {
    for (const chipset of ['i440fx', 'q35'] as const) {
      const facts = bridges[chipset];
      if (!device.name.endsWith(`/${facts.name}`)) continue;
      const config = configOf(device);
      if (config === undefined || idOf(config) !== facts.id) continue;
      return {
        chipset,
        shadow: decodePam(config, facts.pam),
        isSmramOpen: (config.getUint8(facts.smram) & 0x40) !== 0,
        tsegLength: decodeTseg(config, facts),
      };
    }
  }
  return undefined;
}

/** The upper half of PAM0 governs 0xf0000. Each half of PAM1 to PAM6 governs 16 KiB, from 0xc0000 on. */
function decodePam(config: DataView, first: number): ShadowPiece[] {
  // Readable or writable: QEMU shows RAM for either.
  const isRam = (half: number) => (half & 3) !== 0;
  const pieces: ShadowPiece[] = [];
  for (let i = 0; i < 12; i++) {
    const register = config.getUint8(first + 1 + (i >> 1));
    const half = i % 2 === 0 ? register & 0xf : register >> 4;
    pieces.push({ start: 0xc0000 + i * 0x4000, length: 0x4000, isRam: isRam(half) });
  }
  pieces.push({ start: 0xf0000, length: 0x10000, isRam: isRam(config.getUint8(first) >> 4) });
  return pieces;
}

/** Offset of the size of an extended TSEG, in MiB. */
const extendedTseg = 0x50;

function decodeTseg(config: DataView, { smram, tseg }: BridgeFacts): number {
  if (tseg === undefined) return 0;
  const isEnabled = (config.getUint8(smram) & 0x08) !== 0 && (config.getUint8(tseg) & 0x01) !== 0;
  if (!isEnabled) return 0;
  const size = (config.getUint8(tseg) >> 1) & 3;
  return ([1, 2, 8, config.getUint16(extendedTseg, true)][size] as number) * 0x10_0000;
}

/** The RAM according to the CMOS, in bytes, rounded down to 64 KiB, or to 1 KiB below 16 MiB. */
export interface CmosMemory {
  below4g: number;
  above4g: number;
}

/** The sizes that QEMU wrote into the CMOS for the firmware. A guest may have changed them. */
export function readCmosMemory(devices: readonly DeviceBody[]): CmosMemory | undefined {
  const cmos = devices.find(({ name }) => name === 'mc146818rtc')?.data;
  if (cmos === undefined || cmos.length < 128) return undefined;
  const word = (at: number) => (cmos[at] as number) + (cmos[at + 1] as number) * 0x100;
  const beyond16m = word(0x34) * 0x1_0000;
  const beyond1m = word(0x30) * 0x400;
  return {
    below4g: beyond16m === 0 ? 0x10_0000 + beyond1m : 0x100_0000 + beyond16m,
    above4g: (word(0x5b) + (cmos[0x5d] as number) * 0x1_0000) * 0x1_0000,
  };
}

/** The base address register of each RAM block, by vendor and device. Registers are numbered from 0. */
const shownBlocks: readonly [id: number, block: string, register: number][] = [
  [0x1234_1111, 'vga.vram', 0],
  [0x1234_1111, 'bochs-display-vram', 0],
  [0x1013_00b8, 'vga.vram', 0],
  [0x1b36_0100, 'vga.vram', 0],
  [0x1b36_0100, 'qxl.vram', 1],
  [0x1b36_0100, 'qxl.vrom', 2],
  [0x1af4_1050, 'vga.vram', 0],
  [0x15ad_0405, 'vga.vram', 1],
  [0x15ad_0405, 'vmsvga.fifo', 2],
];

/** A device with one block, of any name: ivshmem. */
const ivshmem = { id: 0x1af4_1110, register: 2 };

const memoryEnabled = 0x02;

/** A block of the VMware VGA that QEMU does not name after its device. A machine has only one. */
const unprefixed = 'vmsvga.fifo';

/** The name of the PCI device that a RAM block belongs to, with the slash, such as `0000:00:02.0/`; '' for any. */
export function pciPrefix(idstr: string): string | undefined {
  if (idstr === unprefixed) return '';
  return /^(?:[0-9a-f]{4}:)?(?:[0-9a-f]{2}:)*[0-9a-f]{2}\.[0-7]\//i.exec(idstr)?.[0];
}

/**
 * The address at which a PCI device shows one of its RAM blocks; `hidden` if it is not visible now; undefined if
 * unknown.
 */
export function findShown(devices: readonly DeviceBody[], idstr: string): number | 'hidden' | undefined {
  const prefix = pciPrefix(idstr);
  if (prefix === undefined) return undefined;
  const name = idstr.slice(prefix.length);
  for (const device of devices) {
    const config = device.name.startsWith(prefix) ? configOf(device) : undefined;
    if (config === undefined) continue;
    const isEnabled = (config.getUint16(4, true) & memoryEnabled) !== 0;
    const id = idOf(config);
    const shown = shownBlocks.find(([owner, block]) => owner === id && block === name)?.[2];
    const register = id === ivshmem.id ? ivshmem.register : shown;
    if (register !== undefined) return isEnabled ? readBase(config, register) : 'hidden';
    if (name.endsWith('.rom')) {
      const base = config.getUint32(0x30, true);
      return isEnabled && base % 2 === 1 ? base - (base % 0x800) : 'hidden';
    }
  }
  return undefined;
}

function readBase(config: DataView, register: number): number | 'hidden' {
  const at = 0x10 + 4 * register;
  const low = config.getUint32(at, true);
  const is64Bit = ((low >> 1) & 3) === 2;
  const base = low - (low % 16) + (is64Bit ? config.getUint32(at + 4, true) * 2 ** 32 : 0);
  // Excludes an unset register, and an unfinished size probe.
  return base >= 0x10_0000 && Number.isSafeInteger(base) && base < 2 ** 52 ? base : 'hidden';
}

/** The window of a VGA at 0xa0000: its memory if the mode is linear, otherwise registers. */
export interface VgaWindow {
  /** Name of the device's state. */
  device: string;
  /** Undefined: no memory is visible, or it is unknown which. */
  linear: { start: number; length: number; offset: number; block: string } | undefined;
}

const vgaClass = 0x0300;

/** Ranges of the window by the memory map field of graphics register 6. */
const vgaMaps = [
  { start: 0xa0000, length: 0x20000 },
  { start: 0xa0000, length: 0x10000 },
  { start: 0xb0000, length: 0x8000 },
  { start: 0xb8000, length: 0x8000 },
];

/** The VGA of the machine, if there is one. */
export function findVga(devices: readonly DeviceBody[]): VgaWindow | undefined {
  for (const device of devices) {
    const prefix = pciPrefix(device.name);
    const config = prefix === undefined ? undefined : configOf(device);
    if (prefix === undefined || config === undefined || config.getUint16(0x0a, true) !== vgaClass) continue;
    const isLinear = device.state !== undefined && device.name === `${prefix}vga`;
    return { device: device.name, linear: isLinear ? linearWindow(device, `${prefix}vga.vram`) : undefined };
  }
  return undefined;
}

/** In chain-4 mode with all planes writable the window is plain memory. */
function linearWindow({ state }: DeviceBody, block: string): VgaWindow['linear'] {
  if (state === undefined) return undefined;
  const [sequencer, graphics, bank] = ['vga.sr', 'vga.gr', 'vga.bank_offset'].map((path) => findValue(state, path));
  if (!(sequencer instanceof Uint8Array) || !(graphics instanceof Uint8Array)) return undefined;
  const isChained = ((sequencer[2] ?? 0) & 0xf) === 0xf && ((sequencer[4] ?? 0) & 8) !== 0;
  if (!isChained || typeof bank !== 'number' || bank < 0) return undefined;
  const map = vgaMaps[((graphics[6] ?? 0) >> 2) & 3];
  return map === undefined ? undefined : { ...map, offset: bank, block };
}

/** The controllers of memory hot-plug. Their state has an element for each slot. */
const slotControllers = ['/piix4_pm', '/ICH9LPC'];

/** The number of slots for memory. Undefined if there is no controller with a known state. */
export function countSlots(devices: readonly DeviceBody[]): number | undefined {
  for (const { name, state } of devices) {
    if (state === undefined || !slotControllers.some((each) => name.endsWith(each))) continue;
    const hotplug = findStruct(state, 'memory hotplug state');
    const slots = hotplug === undefined ? undefined : findValue(hotplug, 'devs');
    return Array.isArray(slots) ? slots.length : 0;
  }
  return undefined;
}

function findStruct(state: StateStruct, vmsdName: string): StateStruct | undefined {
  if (state.vmsdName === vmsdName) return state;
  const inside = [
    ...state.subsections,
    ...state.fields.filter(({ type }) => type === 'struct').map(({ value }) => value),
  ];
  for (const each of inside.flat() as StateValue[]) {
    const found = isStruct(each) ? findStruct(each, vmsdName) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
