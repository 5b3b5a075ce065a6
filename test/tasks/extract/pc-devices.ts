/** Hand-made device states of a PC, as far as the memory layout reads them. */
import { decodeDevice } from '../../../src/devices/device-state.ts';
import type { DeviceBody } from '../../../src/tasks/extract/pc-chipset.ts';
import type { FieldDescription, StateDescription } from '../../../src/vm/description.ts';
import { sectionOf } from '../../devices/devices.ts';
import { virtioBody } from '../../devices/virtio.ts';

type Registers = Record<number, number>;

/** A PCI device's body: be32 version, 256 bytes of configuration space, interrupts. */
export function pciDevice(name: string, id: number, registers: Registers = {}): DeviceBody {
  const data = new Uint8Array(4 + 256 + 17);
  const view = new DataView(data.buffer);
  view.setUint32(0, 2);
  view.setUint16(4, Math.floor(id / 0x1_0000), true);
  view.setUint16(6, id % 0x1_0000, true);
  for (const [at, value] of Object.entries(registers)) data[4 + Number(at)] = value;
  return { name, data, state: undefined };
}

/** All shadow RAM off, or on. */
const pam = (first: number, isOn: boolean): Registers =>
  Object.fromEntries(Array.from({ length: 7 }, (_, i) => [first + i, isOn ? 0x33 : 0]));

export const i440fx = (registers: Registers = {}, isShadowed = true) =>
  pciDevice('0000:00:00.0/I440FX', 0x8086_1237, { ...pam(0x59, isShadowed), ...registers });

export const q35 = (registers: Registers = {}, isShadowed = true) =>
  pciDevice('0000:00:00.0/mch', 0x8086_29c0, { ...pam(0x90, isShadowed), ...registers });

/** A VGA at 0xfd000000. */
export const vga = (registers: Registers = {}) =>
  pciDevice('0000:00:02.0/vga', 0x1234_1111, { 4: 7, 11: 3, 19: 0xfd, 16: 8, ...registers });

/** The sizes of RAM, as QEMU writes them. */
export function rtc(below4g: number, above4g: number): DeviceBody {
  const data = new Uint8Array(200);
  const view = new DataView(data.buffer);
  view.setUint16(0x30, Math.min(0xffff, Math.max(0, below4g - 0x10_0000) / 1024), true);
  view.setUint16(0x34, Math.min(0xffff, Math.max(0, below4g - 0x100_0000) / 0x1_0000), true);
  view.setUint16(0x5b, (above4g / 0x1_0000) % 0x1_0000, true);
  data[0x5d] = Math.floor(above4g / 0x1_0000 / 0x1_0000) % 0x100;
  return { name: 'mc146818rtc', data, state: undefined };
}

/** A controller of memory hot-plug with a flag for each slot. */
export function slots(...enabled: boolean[]): DeviceBody {
  const state = (vmsdName: string, fields: FieldDescription[]): StateDescription => {
    return { vmsdName, version: 1, fields, subsections: [] };
  };
  const field = (name: string, type: string, size: number, ...nested: StateDescription[]): FieldDescription => {
    return { name, type, size, arrayLength: undefined, index: undefined, nested };
  };
  const slot = state('memory hotplug device state', [field('is_enabled', 'bool', 1)]);
  const devs = { ...field('devs', 'struct', 1, slot), arrayLength: enabled.length };
  const hotplug = field('acpi_memory_hotplug', 'struct', enabled.length, state('memory hotplug state', [devs]));
  const data = Uint8Array.from(enabled, Number);
  const name = '0000:00:01.3/piix4_pm';
  return decodeDevice(sectionOf(data, { name }), { ...state('piix4_pm', [hotplug]), name, instanceId: 0 });
}

interface VirtioMem {
  address: number;
  length: number;
  piece: number;
  /** Numbers of the plugged pieces. */
  pieces: readonly number[];
}

/** virtio-mem: with a section of its own before RAM (10.0), or inside that of the PCI device (7.2). */
export function virtioMem(
  prefix: string,
  { address, length, piece, pieces }: VirtioMem,
  when: 'early' | 'late',
): DeviceBody {
  const bitmapAt = when === 'early' ? 36 : 52;
  const data = new Uint8Array(bitmapAt + Math.ceil(length / piece / 64) * 8);
  const view = new DataView(data.buffer);
  for (const [i, value] of [address, length, piece].entries()) view.setBigUint64(8 * i, BigInt(value));
  for (const i of pieces) data[bitmapAt + 8 * Math.floor(i / 64) + 7 - Math.floor((i % 64) / 8)]! |= 1 << (i % 8);
  if (when === 'early') return { name: `${prefix}virtio-mem-device-early`, data, state: undefined };
  const name = `${prefix}virtio-mem`;
  const body = virtioBody({ own: data });
  const virtio = { name: 'virtio', type: 'virtio', size: body.length, arrayLength: undefined, index: undefined };
  const description = { vmsdName: 'virtio-mem', version: 1, fields: [{ ...virtio, nested: [] }], subsections: [] };
  return decodeDevice(sectionOf(body, { name }), { ...description, name, instanceId: 0 });
}
