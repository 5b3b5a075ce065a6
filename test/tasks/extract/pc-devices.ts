/** Hand-made device states of a PC, as far as the memory layout reads them. */
import type { DeviceBody } from '../../../src/tasks/extract/pc-chipset.ts';

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
