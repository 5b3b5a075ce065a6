import { describe, expect, it } from 'vitest';
import type { StateStruct } from '../../../src/devices/device-state.ts';
import type { DeviceBody } from '../../../src/tasks/extract/pc-chipset.ts';
import { type LayoutOptions, layOutPhysical } from '../../../src/tasks/extract/physical-layout.ts';

const MiB = 2 ** 20;

const cpuWith = (name: string): DeviceBody => {
  const field = { name, type: 'uint64', index: undefined, offset: 0, length: 8, value: 0 };
  const state: StateStruct = { vmsdName: 'cpu', version: 1, offset: 0, length: 8, fields: [field], subsections: [] };
  return { name: 'cpu', data: new Uint8Array(8), state };
};
const arm = cpuWith('cpreg_vmstate_indexes');
const riscv = cpuWith('env.satp');

function lay(
  machine: string | undefined,
  sizes: Record<string, number>,
  cpu?: DeviceBody,
  options: LayoutOptions = {},
) {
  const blocks = Object.entries(sizes).map(([idstr, usedLength], index) => ({
    index,
    idstr,
    usedLength,
    pageSize: 4096,
  }));
  const layout = layOutPhysical({ machine, blocks, devices: cpu === undefined ? [] : [cpu] }, options);
  const ranges = layout.ranges.map(({ start, length, block, offset }) => [start, length, block.idstr, offset]);
  return { ...layout, ranges };
}

const board = {
  'mach-virt.ram': 64 * MiB,
  '0000:00:01.0/virtio-net-pci.rom': MiB,
  'virt.flash0': 64 * MiB,
  'virt.flash1': 64 * MiB,
};

describe('a machine whose RAM begins at a fixed address', () => {
  it.each([
    ['virt-10.0', board, arm, 0x4000_0000],
    ['virt', { 'riscv_virt_board.ram': 64 * MiB, 'riscv_virt_board.mrom': 64 << 10 }, riscv, 0x8000_0000],
    ['s390-ccw-virtio-7.2', { 's390.ram': 64 * MiB }, cpuWith('env.psw.mask'), 0],
    ['pseries-10.0', { 'ppc_spapr.ram': 64 * MiB }, cpuWith('env.nip'), 0],
    ['sbsa-ref', { 'sbsa-ref.ram': 64 * MiB, 'sbsa-ref.secure-ram': MiB, 'sbsa.flash0': MiB }, arm, 0x100_0000_0000],
  ])('%s', (machine, blocks, cpu, base) => {
    const [name = ''] = Object.keys(blocks);
    expect(lay(machine, blocks, cpu)).toMatchObject({
      ...{
        ranges: [[base, 64 * MiB, name, 0]],
        ramBytes: 64 * MiB,
        ramEnd: base + 64 * MiB,
        assumed: [],
        unplaced: [],
      },
    });
  });

  it('is known by the name of its RAM if its CPU cannot be read, but not by the name of the machine alone', () => {
    expect(lay('virt-10.0', board).ranges[0]?.[0]).toBe(0x4000_0000);
    expect(() => lay('virt', { backend: 64 * MiB })).toThrow(
      /^expected a machine whose guest-physical layout is known \(.*\), got virt$/,
    );
    expect(lay('virt', { backend: 64 * MiB }, riscv).ranges).toEqual([[0x8000_0000, 64 * MiB, 'backend', 0]]);
  });

  it('may have RAM of several nodes, in an order that is assumed or stated', () => {
    const nodes = { a: 64 * MiB, b: 32 * MiB };
    const assumed = lay('virt-10.0', nodes, arm);
    expect(assumed.ranges).toEqual([
      [0x4000_0000, 64 * MiB, 'a', 0],
      [0x4400_0000, 32 * MiB, 'b', 0],
    ]);
    expect(assumed.notes).toEqual([
      'the order of a, b is not in the file: assumed to be the order in which they were created',
    ]);
    const stated = lay('virt-10.0', nodes, arm, { ram: ['b', 'a'] });
    expect(stated.ranges.map(([start]) => start)).toEqual([0x4000_0000, 0x4200_0000]);
    expect(stated.notes).toEqual([]);
    expect(() => lay('virt-10.0', nodes, arm, { ram: ['b', 'b'] })).toThrow('expected blocks of RAM (a, b), each once');
  });

  it('has memory devices where they are stated', () => {
    const layout = lay('virt-10.0', { ...board, dimm: MiB }, arm, {
      dimms: [{ block: 'dimm', address: 0x1_0000_0000 }],
    });
    expect(layout.ranges.at(-1)).toEqual([0x1_0000_0000, MiB, 'dimm', 0]);
    expect(layout.ramEnd).toBe(0x1_0010_0000);
    expect(lay('virt-10.0', { ...board, dimm: MiB }, arm).unplaced.map(({ block }) => block.idstr)).toEqual(['dimm']);
  });
});

describe('a machine of another type', () => {
  it('has the places that are stated, and is refused if none are', () => {
    const blocks = { 'own.ram': MiB };
    expect(() => lay('own', blocks)).toThrow(/, got own$/);
    expect(() => lay(undefined, blocks)).toThrow(/, got a file that does not name its machine$/);
    const dimms = [{ block: 'own.ram', address: 0x2000_0000 }];
    expect(lay('own', blocks, undefined, { dimms }).ranges).toEqual([[0x2000_0000, MiB, 'own.ram', 0]]);
  });
});
