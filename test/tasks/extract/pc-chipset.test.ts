import { describe, expect, it } from 'vitest';
import { findHostBridge, findShown, findVga, readCmosMemory } from '../../../src/tasks/extract/pc-chipset.ts';
import { describedDevice, type Plain, type PlainStruct } from '../../devices/described-device.ts';
import { i440fx, pciDevice, q35, rtc, vga } from './pc-devices.ts';

const KiB16 = 0x4000;

describe('the host bridge', () => {
  it.each([
    ['i440fx', i440fx, 0x59, 0x72],
    ['q35', q35, 0x90, 0x9d],
  ] as const)(
    '%s: each half of a PAM register is 16 KiB, and RAM if readable or writable',
    (chipset, make, pam, smram) => {
      const bridge = findHostBridge([make({ [pam]: 0x10, [pam + 1]: 0x21, [pam + 6]: 0x30, [smram]: 0x4a }, false)]);
      expect(bridge?.chipset).toBe(chipset);
      const ram = bridge?.shadow.filter(({ isRam }) => isRam).map(({ start, length }) => [start, length]);
      expect(ram).toEqual([
        [0xc0000, KiB16],
        [0xc4000, KiB16],
        [0xec000, KiB16],
        [0xf0000, 0x10000],
      ]);
      expect(bridge?.isSmramOpen).toBe(true);
      expect(bridge?.shadow.reduce((sum, { length }) => sum + length, 0)).toBe(0x40000);
    },
  );

  it('is not found under another name, id or length', () => {
    expect(findHostBridge([])).toBeUndefined();
    expect(findHostBridge([pciDevice('0000:00:00.0/I440FX', 0x8086_29c0)])).toBeUndefined();
    expect(findHostBridge([pciDevice('0000:00:00.0/mchx', 0x8086_29c0)])).toBeUndefined();
    const { name, data } = q35();
    for (const length of [0, 3, 259]) {
      expect(findHostBridge([{ name, data: data.subarray(0, length), state: undefined }])).toBeUndefined();
    }
  });

  it.each([
    [0x38, 0x0a, 0],
    [0x39, 0x02, 0],
    [0x39, 0x0a, 1],
    [0x3b, 0x0a, 2],
    [0x3d, 0x0a, 8],
    [0x3f, 0x0a, 0x110],
  ])('q35: ESMRAMC 0x%x and SMRAM 0x%x hide a TSEG of %i MiB', (esmramc, smram, mebibytes) => {
    const registers = { 158: esmramc, 157: smram, 80: 0x10, 81: 0x01 };
    expect(findHostBridge([q35(registers)])?.tsegLength).toBe(mebibytes * 2 ** 20);
    expect(findHostBridge([i440fx(registers)])?.tsegLength).toBe(0);
  });
});

describe('the CMOS', () => {
  it.each([
    [2, 0],
    [16, 0],
    [64, 0],
    [3072, 2048],
    [2048, 2 ** 20 - 1],
  ])('says that %i MiB are below 4 GiB, and %i above', (below, above) => {
    const [below4g, above4g] = [below * 2 ** 20, above * 2 ** 20];
    expect(readCmosMemory([rtc(below4g, above4g)])).toEqual({ below4g, above4g });
  });

  it('states nothing if it is missing or too short', () => {
    expect(readCmosMemory([])).toBeUndefined();
    expect(readCmosMemory([{ name: 'mc146818rtc', data: new Uint8Array(127), state: undefined }])).toBeUndefined();
  });
});

describe('where a PCI device shows a block', () => {
  const where = (registers: Record<number, number>, block = 'vga.vram', id?: number) =>
    findShown(
      [id === undefined ? vga(registers) : pciDevice('0000:00:02.0/x', id, registers)],
      `0000:00:02.0/${block}`,
    );

  it('is in its base address register', () => {
    expect(where({})).toBe(0xfd000000);
    expect(where({ 4: 2, 20: 0, 23: 0xf4 }, 'qxl.vram', 0x1b36_0100)).toBe(0xf4000000);
    expect(where({ 16: 0xc, 20: 1 })).toBe(0x1_fd00_0000);
  });

  it('is undefined if memory is off, or the register is unset', () => {
    expect(where({ 4: 0 })).toBe('hidden');
    expect(where({ 19: 0 })).toBe('hidden');
    expect(where({ 16: 0xc, 23: 0xff })).toBe('hidden');
  });

  it('is found without the device in its name', () => {
    const device = pciDevice('0000:00:05.0/vmware_vga', 0x15ad_0405, { 4: 7, 27: 0xfe });
    expect(findShown([vga(), device], 'vmsvga.fifo')).toBe(0xfe000000);
    expect(findShown([vga()], 'vmsvga.fifo')).toBeUndefined();
    expect(findShown([device], 'pc.rom')).toBeUndefined();
  });

  it('is in the register for a ROM, if that is on', () => {
    expect(where({ 48: 1, 51: 0xfe }, 'vga.rom')).toBe(0xfe000000);
    expect(where({ 48: 0, 51: 0xfe }, 'vga.rom')).toBe('hidden');
  });

  it('is unknown for other blocks and devices', () => {
    expect(where({}, 'shm')).toBeUndefined();
    expect(where({}, 'vga.vram', 0x1234_1112)).toBeUndefined();
    expect(findShown([vga()], '0000:00:03.0/vga.vram')).toBeUndefined();
    expect(findShown([vga()], 'pc.ram')).toBeUndefined();
  });
});

/** A VGA's state with these fields. */
const vgaState = (values: PlainStruct) => describedDevice('0000:00:02.0/vga', { vga: values }).state;

describe('the window of a VGA', () => {
  const linear = (sequencer: Record<number, number>, map: number, bank: Plain = 0x10000) => {
    const [sr, gr] = [new Uint8Array(8), new Uint8Array(16)];
    for (const [at, value] of Object.entries(sequencer)) sr[Number(at)] = value;
    gr[6] = map << 2;
    return findVga([{ ...vga(), state: vgaState({ sr, gr, bank_offset: bank }) }])?.linear;
  };
  const chained = { 2: 0x0f, 4: 0x0e };

  it.each([
    [0, 0xa0000, 0x20000],
    [1, 0xa0000, 0x10000],
    [2, 0xb0000, 0x8000],
    [3, 0xb8000, 0x8000],
  ])('in chain-4 mode with memory map %i is its memory at 0x%x', (map, start, length) => {
    expect(linear(chained, map)).toEqual({ start, length, offset: 0x10000, block: '0000:00:02.0/vga.vram' });
  });

  it('is registers in other modes, or if the state is unknown', () => {
    expect(linear({ 2: 0x07, 4: 0x0e }, 1)).toBeUndefined();
    expect(linear({ 2: 0x0f, 4: 0x06 }, 1)).toBeUndefined();
    expect(linear(chained, 1, 2n ** 63n)).toBeUndefined();
    expect(linear(chained, 1, new Uint8Array(4))).toBeUndefined();
    expect(findVga([{ ...vga(), state: vgaState({}) }])).toEqual({ device: '0000:00:02.0/vga', linear: undefined });
    expect(findVga([vga()])).toEqual({ device: '0000:00:02.0/vga', linear: undefined });
  });

  it('does not exist for other displays', () => {
    expect(findVga([vga({ 10: 0x80 }), i440fx(), rtc(0, 0)])).toBeUndefined();
  });
});
