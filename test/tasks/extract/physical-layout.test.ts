import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DeviceBody } from '../../../src/tasks/extract/pc-chipset.ts';
import { type LayoutFacts, type LayoutOptions, layOutPhysical } from '../../../src/tasks/extract/physical-layout.ts';
import type { MemoryNode } from '../../../src/tasks/extract/srat.ts';
import type { RamBlock } from '../../../src/vm/ram-block.ts';
import { i440fx, q35, rtc, vga } from './pc-devices.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const fourGiB = 4 * GiB;

const makeBlocks = (sizes: Record<string, number>): RamBlock[] =>
  Object.entries(sizes).map(([idstr, usedLength], index) => ({ index, idstr, usedLength, pageSize: 4096 }));

type Make = Partial<Omit<LayoutFacts, 'blocks'>> & { blocks?: Record<string, number> };

/** The ACPI tables' description of these nodes. */
const affine = (nodes: MemoryNode[], deviceMemory?: { base: number; length: number }) => ({
  affinity: { nodes, deviceMemory },
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
    expect(layout.notes).toEqual([expect.stringMatching(/^the CMOS does not say how RAM is split/)]);
  });

  it('is unambiguous for little RAM', () => {
    expect(lay({ blocks: { 'pc.ram': 3 * GiB } })).toMatchObject({ below4g: 3 * GiB, ramEnd: 3 * GiB, notes: [] });
  });

  it('comes from the CMOS, if it agrees with the size of RAM', () => {
    const devices = [i440fx(), rtc(GiB, 3 * GiB)];
    expect(lay({ devices, blocks: { 'pc.ram': 4 * GiB } })).toMatchObject({
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
    const make = { devices: [i440fx(), rtc(3 * GiB, GiB)], blocks: { 'pc.ram': 4 * GiB } };
    expect(lay(make, { below4g: 3 * GiB })).toMatchObject({ below4g: 3 * GiB, splitFrom: 'stated', notes: [] });
    expect(lay(make, { below4g: 2 * GiB }).notes).toEqual([expect.stringMatching(/CMOS says that 0xc0000000 bytes/)]);
    for (const below4g of [0, -4096, 4097, 4 * GiB, 5 * GiB, Number.NaN, 0.5, 2 ** 60]) {
      expect(() => lay(make, { below4g })).toThrow(RangeError);
    }
    expect(() => lay({}, { below4g: 65 * MiB })).toThrow(/at most all/);
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
    const layout = lay({ machine: 'pc-q35-10.0', devices, blocks: numa, ...affine(nodes) });
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
    expect(unplacedIn({ blocks: { ...blocks, more: MiB }, ...affine([node], room) })).toEqual(['mem', 'more']);
    expect(unplacedIn({ blocks, ...affine([node], { base: fourGiB, length: 4096 }) })).toEqual(['mem']);
    expect(unplacedIn({ blocks, ...affine([node], { base: MiB, length: GiB }) })).toEqual(['mem']);
  });

  it.each([
    ['over RAM', 'mem', 0],
    ['over the end of RAM', 'mem', 64 * MiB - 4096],
    ['not at a page', 'mem', fourGiB + 1],
    ['beyond all addresses', 'mem', 2 ** 53 - 4096],
    ['at no address', 'mem', Number.NaN],
    ['before all addresses', 'mem', -4096],
    ['of a block that does not exist', 'none', fourGiB],
    ['of a block that is RAM', 'pc.ram', fourGiB],
  ])('are refused %s', (_, block, address) => {
    expect(() => lay({ blocks }, { dimms: [{ block, address }] })).toThrow(RangeError);
  });
});

describe('other machines', () => {
  it.each(['none', 'isapc', 'microvm', 'virt-10.0', 'xenfv-4.2', '', 'pc-bhyve'])('"%s" is refused', (machine) => {
    expect(() => lay({ machine })).toThrow(/expected a machine pc or q35/);
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
