import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AcpiMemory } from '../../../src/tasks/extract/acpi-memory.ts';
import type { DeviceBody } from '../../../src/tasks/extract/pc-chipset.ts';
import { type LayoutFacts, type LayoutOptions, layOutPhysical } from '../../../src/tasks/extract/physical-layout.ts';
import type { AddressRange, MemoryAffinity, MemoryNode } from '../../../src/tasks/extract/srat.ts';
import type { RamBlock } from '../../../src/vm/ram-block.ts';
import { i440fx, pciDevice, q35, rtc, slots, vga, virtioMem } from './pc-devices.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const fourGiB = 4 * GiB;

const makeBlocks = (sizes: Record<string, number>): RamBlock[] =>
  Object.entries(sizes).map(([idstr, usedLength], index) => ({ index, idstr, usedLength, pageSize: 4096 }));

type Make = Partial<Omit<LayoutFacts, 'blocks'>> & { blocks?: Record<string, number> };

/** ACPI tables with a SRAT of these nodes. */
const affine = (nodes: MemoryNode[], deviceMemory?: AddressRange, split: Partial<MemoryAffinity> = {}) => {
  const below4g = nodes.reduce((sum, { length }) => sum + length, 0);
  const affinity = { nodes, below4g, above4g: undefined, deviceMemory, nonVolatile: [], ...split };
  return { acpi: { affinity, nvdimms: [], pciWindow: { base: 0, length: 0 }, cxlWindows: [] } };
};

/** ACPI tables without a SRAT. */
const tables = (base: number, length: number, more: Partial<AcpiMemory> = {}) => ({
  acpi: { affinity: undefined, nvdimms: [], pciWindow: { base, length }, cxlWindows: [], ...more },
});

function lay({ blocks = { 'pc.ram': 64 * MiB }, ...facts }: Make = {}, options: LayoutOptions = {}) {
  const given = { machine: 'pc-i440fx-10.0', devices: [i440fx()], ...facts, blocks: makeBlocks(blocks) };
  const { ranges, ...layout } = layOutPhysical(given, options);
  return { ...layout, ranges: ranges.map(({ start, length, block, offset }) => [start, length, block.idstr, offset]) };
}

describe('the split of RAM', () => {
  it.each([
    ['pc-i440fx-10.0', i440fx, 3583, 3583],
    ['pc-i440fx-10.0', i440fx, 3584, 3072],
    ['pc-i440fx-7.2', i440fx, 5120, 3072],
    ['pc-q35-7.2', q35, 2815, 2815],
    ['pc-q35-10.0', q35, 2816, 2048],
    ['pc-q35-rhel9.2.0', q35, 5120, 2048],
  ] as const)('of %s, without a CMOS, by the machine type', (machine, bridge, ram, below) => {
    const layout = lay({ machine, devices: [bridge()], blocks: { 'pc.ram': ram * MiB } });
    expect(layout.below4g).toBe(below * MiB);
    expect(layout.splitFrom).toBe('machine type');
    const high = [fourGiB, (ram - below) * MiB, 'pc.ram', below * MiB];
    expect(layout.ranges).toEqual([[0, below * MiB, 'pc.ram', 0], ...(ram > below ? [high] : [])]);
    expect(layout.ramEnd).toBe(ram > below ? fourGiB + (ram - below) * MiB : ram * MiB);
    expect(layout.assumed.map(({ what }) => what)).toEqual(['below-4g', ...(ram > below ? ['above-4g'] : [])]);
    expect(layout.notes[0]).toMatch(/^the CMOS does not say how RAM is split/);
  });

  it('is unambiguous for little RAM', () => {
    expect(lay({ blocks: { 'pc.ram': 3 * GiB } })).toMatchObject({ below4g: 3 * GiB, ramEnd: 3 * GiB, notes: [] });
  });

  it('comes from the CMOS, if it agrees with the size of RAM', () => {
    const machine = 'pc-i440fx-7.0';
    const devices = [i440fx(), rtc(GiB, 3 * GiB)];
    expect(lay({ machine, devices, blocks: { 'pc.ram': 4 * GiB } })).toMatchObject({
      below4g: GiB,
      splitFrom: 'cmos',
      notes: [],
    });
    expect(lay({ devices, blocks: { 'pc.ram': 5 * GiB } })).toMatchObject({
      below4g: 3 * GiB,
      splitFrom: 'machine type',
    });
    const large = { devices: [q35(), rtc(2 * GiB, 3072 * GiB)], blocks: { 'pc.ram': 3074 * GiB } };
    expect(lay(large)).toMatchObject({ below4g: 2 * GiB, splitFrom: 'cmos' });
    expect(lay({ devices: [i440fx(), rtc(2 * MiB, 0)], blocks: { 'pc.ram': 2 * MiB } }).splitFrom).toBe('cmos');
  });

  it('may be stated, and is compared with the CMOS', () => {
    const devices = [i440fx(), rtc(3 * GiB, GiB)];
    const make = { machine: 'pc-i440fx-7.0', devices, blocks: { 'pc.ram': 4 * GiB } };
    expect(lay(make, { below4g: 3 * GiB })).toMatchObject({ below4g: 3 * GiB, splitFrom: 'stated', notes: [] });
    expect(lay(make, { below4g: 2 * GiB }).notes).toEqual([expect.stringMatching(/CMOS says that 0xc0000000 bytes/)]);
    for (const below4g of [0, -4096, 4097, 4 * GiB, 5 * GiB, Number.NaN, 0.5, 2 ** 60]) {
      expect(() => lay(make, { below4g })).toThrow(RangeError);
    }
    expect(() => lay({}, { below4g: 65 * MiB })).toThrow(/at most all/);
  });
});

describe('the address of RAM above 4 GiB', () => {
  const TiB = 2 ** 40;
  const nodes = [{ node: 0, base: 0, length: 64 * MiB }];
  const make = (facts: Make = {}): Make => ({
    machine: 'pc-q35-10.0',
    devices: [q35(), rtc(48 * MiB, 16 * MiB)],
    ...facts,
  });
  const upper = ({ above4g, above4gFrom, assumed, ramEnd }: ReturnType<typeof lay>) => {
    expect(ramEnd).toBe((above4g ?? 0) + 16 * MiB);
    return [above4g, above4gFrom, assumed.map(({ option }) => option).join()];
  };
  const split = (above4g: number) => affine(nodes, undefined, { below4g: 48 * MiB, above4g });

  it.each([
    ['in the SRAT', split(TiB), [TiB, 'acpi', '']],
    [
      'in the SRAT, with another split than in the CMOS',
      { ...split(TiB), devices: [q35(), rtc(32 * MiB, 32 * MiB)] },
      [TiB, 'acpi', ''],
    ],
    ['below PCI addresses that are below 1 TiB', tables(5 * GiB, TiB), [fourGiB, 'acpi', '']],
    ['right below PCI addresses that are above 1 TiB', tables(TiB + GiB, TiB), [TiB, 'acpi', '']],
    ['low if the PCI addresses are few', tables(0x3800_0000_0000, 32 * GiB), [fourGiB, 'acpi', '']],
    ['low if there are no PCI addresses', tables(0, 0), [fourGiB, 'acpi', '']],
    [
      'low with CXL windows below 1 TiB',
      tables(3 * TiB, TiB, { cxlWindows: [{ base: 5 * GiB, length: GiB }] }),
      [fourGiB, 'acpi', ''],
    ],
    [
      'assumed if firmware moved the PCI addresses',
      tables(0x3800_0000_0000, TiB),
      [fourGiB, 'machine type', 'above4g'],
    ],
    [
      'assumed by PCI addresses that are a little above 1 TiB',
      tables(TiB + 4 * GiB, TiB),
      [TiB, 'machine type', 'above4g'],
    ],
    ['assumed without ACPI tables', {}, [fourGiB, 'machine type', 'above4g']],
    ['low in old machine types', { machine: 'pc-q35-7.0' }, [fourGiB, 'machine type', '']],
    [
      'assumed in machine types of distributions',
      { machine: 'pc-q35-rhel9.2.0' },
      [fourGiB, 'machine type', 'above4g'],
    ],
  ] as const)('is %s', (_, facts, expected) => {
    expect(upper(lay(make(facts)))).toEqual(expected);
  });

  it('may be stated, and is compared with the ACPI tables', () => {
    expect(upper(lay(make(), { above4g: TiB }))).toEqual([TiB, 'stated', '']);
    expect(lay(make(split(fourGiB)), { above4g: TiB }).notes).toEqual([
      'the ACPI tables say that RAM continues at 0x100000000, not at 0x10000000000',
    ]);
    for (const above4g of [0, fourGiB - 4096, fourGiB + 1, Number.NaN, 2 ** 52]) {
      expect(() => lay(make(), { above4g })).toThrow(RangeError);
    }
  });

  it('needs no assumption without such RAM', () => {
    expect(lay({ blocks: { 'pc.ram': 64 * MiB } })).toMatchObject({ assumed: [], above4g: fourGiB });
  });
});

describe('the blocks that are RAM', () => {
  const others = { 'pc.bios': 256 * 1024, 'pc.rom': 128 * 1024, '/rom@etc/acpi/tables': 128 * 1024 };

  it('are pc.ram, or the only memory backend', () => {
    expect(lay({ blocks: { dimm: 128 * MiB, 'pc.ram': 64 * MiB } }).ranges).toEqual([[0, 64 * MiB, 'pc.ram', 0]]);
    expect(lay({ blocks: { ...others, shm: 64 * MiB } }).ranges[0]).toEqual([0, 64 * MiB, 'shm', 0]);
    expect(lay({ blocks: { '/objects/ram0': 8 * MiB } }).ranges[0]).toEqual([0, 8 * MiB, '/objects/ram0', 0]);
  });

  const numa = { ...others, large: 48 * MiB, small: 16 * MiB };

  it('are in the order of the memory nodes', () => {
    const nodes = [
      { node: 0, base: 0, length: 16 * MiB },
      { node: 1, base: 16 * MiB, length: 48 * MiB },
    ];
    const devices = [q35(), rtc(40 * MiB, 24 * MiB)];
    const split = { below4g: 40 * MiB, above4g: fourGiB };
    const layout = lay({ machine: 'pc-q35-10.0', devices, blocks: numa, ...affine(nodes, undefined, split) });
    expect(layout.ranges).toEqual([
      [0, 16 * MiB, 'small', 0],
      [16 * MiB, 24 * MiB, 'large', 0],
      [fourGiB - 0x40000, 0x40000, 'pc.bios', 0],
      [fourGiB, 24 * MiB, 'large', 24 * MiB],
    ]);
    expect(layout.notes).toEqual([]);
    expect(lay({ blocks: { ...numa, dimm: MiB }, ...affine(nodes) }).unplaced.map(({ block }) => block.idstr)).toEqual([
      'dimm',
    ]);
  });

  it('are reported as a guess if nodes have the same size', () => {
    const nodes = [0, 1].map((node) => ({ node, base: node * 32 * MiB, length: 32 * MiB }));
    const blocks = { a: 32 * MiB, b: 32 * MiB };
    expect(lay({ blocks, ...affine(nodes) }).notes).toEqual([expect.stringMatching(/^a, b have the same size/)]);
    const devices = [i440fx(), rtc(64 * MiB, 0)];
    expect(lay({ blocks, devices }).notes).toEqual([expect.stringMatching(/order of a, b is not in the file/)]);
  });

  it('may be stated', () => {
    expect(lay({ blocks: numa }, { ram: ['small', 'large'] }).ranges.slice(0, 2)).toEqual([
      [0, 16 * MiB, 'small', 0],
      [16 * MiB, 48 * MiB, 'large', 0],
    ]);
    for (const ram of [['none'], ['small', 'small'], ['pc.bios']]) {
      expect(() => lay({ blocks: numa }, { ram })).toThrow(RangeError);
    }
  });

  it('are refused if unknown', () => {
    expect(() => lay({ blocks: numa })).toThrow(/which of large, small are RAM/);
    expect(() => lay({ blocks: numa, ...affine([{ node: 0, base: 0, length: MiB }]) })).toThrow(RangeError);
    expect(() => lay({ blocks: others })).toThrow(/no block for it/);
    expect(() => lay({ blocks: {} })).toThrow(RangeError);
  });
});

describe('memory devices', () => {
  const blocks = { 'pc.ram': 64 * MiB, mem: 16 * MiB };

  it('have no address unless it is stated', () => {
    expect(lay({ blocks }).unplaced).toMatchObject([{ block: { idstr: 'mem' } }]);
    const layout = lay({ blocks }, { dimms: [{ block: 'mem', address: fourGiB }] });
    expect(layout).toMatchObject({ unplaced: [], ramEnd: fourGiB + 16 * MiB });
    expect(layout.ranges[1]).toEqual([fourGiB, 16 * MiB, 'mem', 0]);
  });

  it("are assumed at QEMU's address for the first one, if there is one, and space for it", () => {
    const node = { node: 0, base: 0, length: 64 * MiB };
    const room = { base: fourGiB, length: GiB };
    const one = lay({ blocks, ...affine([node], room) });
    expect(one).toMatchObject({ unplaced: [], ramEnd: fourGiB + 16 * MiB });
    expect(one.ranges[1]).toEqual([fourGiB, 16 * MiB, 'mem', 0]);
    expect(one.notes).toEqual([expect.stringMatching(/^mem is assumed to be at 0x100000000/)]);
    const unplacedIn = (facts: Make, options?: LayoutOptions) =>
      lay(facts, options).unplaced.map(({ block }) => block.idstr);
    expect(unplacedIn({ blocks, ...affine([node], { base: fourGiB, length: 4096 }) })).toEqual(['mem']);
    expect(unplacedIn({ blocks, ...affine([node], { base: MiB, length: GiB }) })).toEqual(['mem']);
  });

  const node = { node: 0, base: 0, length: 64 * MiB };
  const space = affine([node], { base: fourGiB, length: GiB });
  const placesIn = (make: Make, options?: LayoutOptions) =>
    lay(make, options).memoryDevices.map(({ block, address, kind, from }) => [block.idstr, address, kind, from]);

  it('are assumed one after another, in the order of their names, and of their creation if they have one size', () => {
    const several = { 'pc.ram': 64 * MiB, m10: 32 * MiB, m9: 16 * MiB, m1: 16 * MiB, m2: MiB };
    const layout = lay({ blocks: several, ...space });
    expect(layout.memoryDevices.map(({ block, address }) => [block.idstr, address - fourGiB])).toEqual([
      ['m9', 0],
      ['m2', 16 * MiB],
      ['m1', 18 * MiB],
      ['m10', 34 * MiB],
    ]);
    expect(layout.assumed.map(({ what, blocks: [name], option }) => [what, name, option])).toEqual(
      ['m9', 'm2', 'm1', 'm10'].map((name) => ['memory-device', name, 'dimms']),
    );
    expect(layout.assumed[0]).toMatchObject({ address: fourGiB });
    expect(layout.notes[0]).toMatch(/^m9 is assumed to be at 0x100000000, .* in the order m9, m2, m1, m10$/);
  });

  it('are assumed around those that are stated, or in the configuration of the virtual machine', () => {
    const several = { 'pc.ram': 64 * MiB, a: 16 * MiB, b: 32 * MiB, c: 16 * MiB };
    const configured = [{ block: 'c', address: fourGiB + 32 * MiB }];
    const options = { dimms: [{ block: 'b', address: fourGiB + 64 * MiB }] };
    expect(placesIn({ blocks: several, ...space, configured }, options)).toEqual([
      ['a', fourGiB, 'dimm', 'rule'],
      ['c', fourGiB + 32 * MiB, 'dimm', 'libvirt'],
      ['b', fourGiB + 64 * MiB, 'dimm', 'stated'],
    ]);
  });

  it('have an address above RAM without a SRAT, if the machine has slots', () => {
    const make = { devices: [i440fx(), slots(true, false)], blocks };
    expect(placesIn(make)).toEqual([['mem', fourGiB, 'dimm', 'rule']]);
    expect(placesIn({ ...make, devices: [i440fx()] })).toEqual([]);
    const split = { ...make, devices: [...make.devices, rtc(48 * MiB, 16 * MiB)] };
    expect(placesIn(split)).toEqual([['mem', 5 * GiB, 'dimm', 'rule']]);
  });

  it('that are NVDIMMs are at the addresses of the ACPI tables, without their labels', () => {
    const nvdimms = [
      { base: fourGiB + 32 * MiB, length: 14 * MiB },
      { base: fourGiB, length: 32 * MiB },
    ];
    const make = { blocks: { 'pc.ram': 64 * MiB, large: 32 * MiB, mem: 16 * MiB }, acpi: { ...space.acpi, nvdimms } };
    const layout = lay(make);
    expect(layout.ranges.slice(1)).toEqual([
      [fourGiB, 32 * MiB, 'large', 0],
      [fourGiB + 32 * MiB, 14 * MiB, 'mem', 0],
    ]);
    expect(layout).toMatchObject({ assumed: [], memoryDevices: [{ kind: 'nvdimm' }, { kind: 'nvdimm' }] });
    const alike = { ...make, blocks: { ...make.blocks, more: 16 * MiB } };
    expect(lay(alike).assumed.map(({ blocks: [name] }) => name)).toEqual(['mem', 'more']);
    const stated = lay(alike, { dimms: [{ block: 'more', address: fourGiB + 32 * MiB }] });
    expect(stated.memoryDevices[1]).toMatchObject({ block: { idstr: 'more' }, kind: 'nvdimm', length: 14 * MiB });
  });

  it.each(['early', 'late'] as const)('that are virtio-mem show their plugged pieces, by the %s state', (when) => {
    const pieces = [0, 1, 70];
    const device = virtioMem('0000:00:03.0/', { address: fourGiB, length: 160 * MiB, piece: 2 * MiB, pieces }, when);
    const make = {
      devices: [i440fx(), device],
      blocks: { 'pc.ram': 64 * MiB, '0000:00:03.0/vm': 160 * MiB },
      ...space,
    };
    const layout = lay(make);
    expect(layout.ranges.slice(1)).toEqual([
      [fourGiB, 4 * MiB, '0000:00:03.0/vm', 0],
      [fourGiB + 140 * MiB, 2 * MiB, '0000:00:03.0/vm', 140 * MiB],
    ]);
    expect(layout).toMatchObject({ assumed: [], unplaced: [], ramEnd: fourGiB + 142 * MiB });
    // A DIMM does not go between the pieces.
    expect(placesIn({ ...make, blocks: { ...make.blocks, mem: MiB } })[1]).toEqual([
      'mem',
      fourGiB + 160 * MiB,
      'dimm',
      'rule',
    ]);
    const other = { ...make, blocks: { 'pc.ram': 64 * MiB, '0000:00:03.0/vm': 32 * MiB } };
    expect(lay(other).unplaced).toMatchObject([{ block: { idstr: '0000:00:03.0/vm' } }]);
  });

  it('at an address that is taken are left out, unless it was stated', () => {
    const configured = [{ block: 'mem', address: 32 * MiB }];
    expect(lay({ blocks, configured }).unplaced).toMatchObject([
      { reason: 'other memory is at its address, 0x2000000' },
    ]);
    const odd = [{ block: 'mem', address: fourGiB + 1 }];
    expect(lay({ blocks, configured: odd })).toMatchObject({
      memoryDevices: [],
      unplaced: [{ reason: 'the address of its device is impossible' }],
    });
  });

  it('do not include CXL windows, which are left out', () => {
    const cxlWindows = [{ base: 2 * fourGiB, length: GiB }];
    expect(lay({ blocks, acpi: { ...space.acpi, cxlWindows } }).leftOut).toEqual([
      { base: 2 * fourGiB, length: GiB, reason: expect.stringMatching(/CXL/) },
    ]);
  });

  it('may be missing if the machine has addresses for them, and no slots', () => {
    const make = { ...space, devices: [i440fx(), slots()] };
    expect(lay(make).leftOut).toMatchObject([
      { base: fourGiB, length: GiB, reason: expect.stringMatching(/virtio-pmem/) },
    ]);
    expect(lay({ ...make, blocks }).leftOut).toEqual([]);
    expect(lay({ ...make, devices: [i440fx(), slots(false)] }).leftOut).toEqual([]);
  });

  it('with the memory of an ivshmem are where its register says, or where they are stated', () => {
    const name = '0000:00:04.0/shm';
    const make = (enabled: number) => ({
      blocks: { 'pc.ram': 64 * MiB, [name]: 16 * MiB },
      devices: [i440fx(), pciDevice('0000:00:04.0/ivshmem-plain', 0x1af4_1110, { 4: enabled, 24: 0x0c, 27: 0xe0 })],
    });
    expect(lay(make(2)).ranges[1]).toEqual([0xe000_0000, 16 * MiB, name, 0]);
    expect(lay(make(0))).toMatchObject({ ranges: [[0, 64 * MiB, 'pc.ram', 0]], unplaced: [] });
    const stated = lay(make(0), { dimms: [{ block: name, address: 8 * GiB }] });
    expect(stated.ranges[1]).toEqual([8 * GiB, 16 * MiB, name, 0]);
  });

  it.each([
    ['over RAM', 'mem', 0],
    ['over the end of RAM', 'mem', 64 * MiB - 4096],
    ['not at a page', 'mem', fourGiB + 1],
    ['beyond all addresses', 'mem', 2 ** 53 - 4096],
    ['at no address', 'mem', Number.NaN],
    ['before all addresses', 'mem', -4096],
    ['of a block that does not exist', 'none', fourGiB],
    ['of a block that was stated before', 'mem', fourGiB],
    ['of a block that is RAM', 'pc.ram', fourGiB],
  ])('are refused %s', (_, block, address) => {
    const dimms = [{ block, address }];
    const twice = _.includes('before') ? [...dimms, ...dimms] : dimms;
    expect(() => lay({ blocks }, { dimms: twice })).toThrow(RangeError);
  });
});

describe('other machines', () => {
  it.each(['none', 'isapc', 'microvm', 'virt-10.0', 'xenfv-4.2', '', 'pc-bhyve'])('"%s" is refused', (machine) => {
    expect(() => lay({ machine })).toThrow(/expected a machine whose guest-physical layout is known/);
  });

  it('without a name are recognized by their host bridge', () => {
    expect(lay({ machine: undefined }).chipset).toBe('i440fx');
    expect(() => lay({ machine: undefined, devices: [] })).toThrow(RangeError);
    expect(() => lay({ devices: [] })).toThrow(RangeError);
  });
});

describe('below 1 MiB and below 4 GiB', () => {
  const blocks = { 'pc.ram': 64 * MiB, 'pc.bios': 0x40000, 'pc.rom': 0x20000, '0000:00:02.0/vga.vram': 2 * MiB };
  const low = (make: Make) => lay({ blocks, ...make }).ranges.filter(([start]) => (start as number) < MiB);

  it('ROMs are visible where the shadow RAM is off', () => {
    expect(low({ devices: [i440fx({ 90: 0x10, 95: 0x01 }, false)] })).toEqual([
      [0, 0xc0000, 'pc.ram', 0],
      [0xc0000, 0x4000, 'pc.rom', 0],
      [0xc4000, 0x4000, 'pc.ram', 0xc4000],
      [0xc8000, 0x18000, 'pc.rom', 0x8000],
      [0xe0000, 0x8000, 'pc.bios', 0x20000],
      [0xe8000, 0x4000, 'pc.ram', 0xe8000],
      [0xec000, 0x14000, 'pc.bios', 0x2c000],
    ]);
  });

  it('RAM is visible where there is no ROM', () => {
    const small = { 'pc.ram': 64 * MiB, 'pc.bios': 0x10000 };
    expect(low({ blocks: small, devices: [i440fx({}, false)] })).toEqual([
      [0, 0xf0000, 'pc.ram', 0],
      [0xf0000, 0x10000, 'pc.bios', 0],
    ]);
  });

  it('a VGA hides 128 KiB of RAM, unless SMRAM is open', () => {
    const layout = lay({ blocks, devices: [i440fx(), vga()] });
    expect(layout.vgaWindow).toBe('registers');
    expect(layout.ranges).toEqual([
      [0, 0xa0000, 'pc.ram', 0],
      [0xc0000, 64 * MiB - 0xc0000, 'pc.ram', 0xc0000],
      [0xfd000000, 2 * MiB, '0000:00:02.0/vga.vram', 0],
      [0xfffc0000, 0x40000, 'pc.bios', 0],
    ]);
    const open = lay({ blocks, devices: [i440fx({ 114: 0x4a }), vga()] });
    expect([open.vgaWindow, open.ranges[0]]).toEqual(['none', [0, 64 * MiB, 'pc.ram', 0]]);
  });

  it('flash memory replaces a BIOS', () => {
    const flash = { 'pc.ram': 64 * MiB, 'system.flash0': 4 * MiB, 'system.flash1': MiB };
    const { ranges } = lay({ blocks: flash, devices: [i440fx({}, false)] });
    expect(ranges.slice(1)).toEqual([
      [0xe0000, 0x20000, 'system.flash0', 4 * MiB - 0x20000],
      [MiB, 63 * MiB, 'pc.ram', MiB],
      [fourGiB - 5 * MiB, MiB, 'system.flash1', 0],
      [fourGiB - 4 * MiB, 4 * MiB, 'system.flash0', 0],
    ]);
  });

  it('a TSEG is invisible', () => {
    const layout = lay({ machine: 'pc-q35-10.0', devices: [q35({ 157: 0x0a, 158: 0x3b })] });
    expect(layout.ranges).toEqual([[0, 62 * MiB, 'pc.ram', 0]]);
    const all = lay({ machine: 'pc-q35-10.0', devices: [q35({ 157: 0x0a, 158: 0x3d })], blocks: { 'pc.ram': MiB } });
    expect(all.ranges).toEqual([]);
  });

  it('RAM covers whatever a PCI device claims there', () => {
    const { ranges } = lay({ blocks, devices: [i440fx(), vga({ 19: 0x02 })] });
    expect(ranges.map(([, , block]) => block)).not.toContain('0000:00:02.0/vga.vram');
  });
});

it('ranges are separate, within their blocks, and no more than all blocks, for any sizes and registers', () => {
  const size = fc.integer({ min: 0, max: 2 ** 34 }).map((pages) => pages * 4096);
  const registers = fc.dictionary(fc.integer({ min: 0x50, max: 0xff }).map(String), fc.nat(255), {
    maxKeys: 20,
  }) as fc.Arbitrary<Record<number, number>>;
  const config = fc.dictionary(fc.integer({ min: 4, max: 0x33 }).map(String), fc.nat(255)) as fc.Arbitrary<
    Record<number, number>
  >;
  const names = [
    'pc.ram',
    'pc.bios',
    'pc.rom',
    'system.flash0',
    'isa-bios',
    '0000:00:02.0/vga.vram',
    '0000:00:02.0/vga.rom',
  ];
  const sizes = fc.uniqueArray(fc.tuple(fc.constantFrom(...names), size), { selector: ([name]) => name });
  fc.assert(
    fc.property(
      sizes,
      registers,
      config,
      fc.uint8Array({ maxLength: 200 }),
      fc.boolean(),
      (blocks, bridge, pci, cmos, isQ35) => {
        const devices: DeviceBody[] = [
          isQ35 ? q35(bridge) : i440fx(bridge),
          vga(pci),
          { name: 'mc146818rtc', data: cmos, state: undefined },
        ];
        const facts = { machine: undefined, devices, blocks: makeBlocks(Object.fromEntries(blocks)) };
        try {
          let end = 0;
          for (const { start, length, block, offset } of layOutPhysical(facts).ranges) {
            expect(start).toBeGreaterThanOrEqual(end);
            expect(length).toBeGreaterThan(0);
            expect(offset).toBeGreaterThanOrEqual(0);
            expect(offset + length).toBeLessThanOrEqual(block.usedLength);
            end = start + length;
          }
          expect(Number.isSafeInteger(end)).toBe(true);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
      },
    ),
  );
});
