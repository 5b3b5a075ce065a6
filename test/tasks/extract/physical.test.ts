import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { encodeLibvirtHead } from '../../../src/read/container/libvirt-header.ts';
import { extractElf, extractPhysical, openPhysical } from '../../../src/tasks/extract/physical.ts';
import { loadFixtures } from '../../fixture-files.ts';
import * as build from '../../oracle/build.ts';
import { slowRead } from '../../oracle/slow-reader.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { RecordingFile } from '../../support/recording-file.ts';
import { decodeCore } from './core/decode-core.ts';
import { pciDevice, rtc } from './pc-devices.ts';
import { srat } from './srat-table.ts';

const fixtures = loadFixtures();
const named = (name: string) => fixtures.find((each) => each.name === name)!;
const smp = named('q35-smp-10.0');
const makeScratch = () => new MemoryFile('scratch');
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const MiB = 2 ** 20;

const contentOf = (fixture: (typeof fixtures)[number], idstr: string) =>
  slowRead(fixture.bytes, fixture.offset, fixture.channels).blocks.find((block) => block.idstr === idstr)!.content;

/** Bytes of a file from an address on. */
function bytesAt(file: MemoryFile, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  expect(file.read(bytes, position)).toBe(length);
  return bytes;
}

describe.each(kindsOfSource)('from a %s', (kind) => {
  it("a core file is that of QEMU's dump", async () => {
    const core = new RecordingFile('core');
    const { length } = await extractElf(await opened(smp.bytes, kind), core, { makeScratch });
    expect(length).toBe(smp.core?.length);
    expect(sha256(core.content())).toBe(smp.core?.sha256);
  });

  it('an image has every block where the guest sees it', async () => {
    const image = new MemoryFile('image');
    const { length, layout } = await extractPhysical(await opened(smp.bytes, kind), image, { makeScratch });
    expect([length, image.size]).toEqual([2 ** 32 + MiB, 2 ** 32 + MiB]);
    expect(layout).toMatchObject({ chipset: 'q35', below4g: 3 * MiB, splitFrom: 'cmos', unplaced: [] });
    // The machine has no ACPI tables.
    expect(layout.assumed.map(({ what }) => what)).toEqual(['above-4g']);
    const ram = contentOf(smp, 'pc.ram');
    const bios = contentOf(smp, 'pc.bios');
    const isEqual = (at: number, expected: Uint8Array) =>
      expect(Buffer.compare(bytesAt(image, at, expected.length), expected), `at 0x${at.toString(16)}`).toBe(0);
    isEqual(0, ram.subarray(0, 0xf0000));
    isEqual(0xf0000, bios);
    isEqual(MiB, ram.subarray(MiB, 3 * MiB));
    isEqual(3 * MiB, new Uint8Array(MiB));
    isEqual(2 ** 32 - bios.length, bios);
    isEqual(2 ** 32, ram.subarray(3 * MiB));
  });
});

it('zeros and gaps are never written', async () => {
  const image = new RecordingFile('image');
  await extractPhysical(await opened(smp.bytes), image, { makeScratch });
  const written = image.writes.reduce((sum, { length }) => sum + length, 0);
  expect(written).toBeLessThan(MiB);
});

it('a split may be stated', async () => {
  const options = { makeScratch, below4g: 2 * MiB, above4g: 2 ** 33 };
  const { layout, length } = await extractPhysical(await opened(smp.bytes), new MemoryFile('image'), options);
  expect(length).toBe(2 ** 33 + 2 * MiB);
  expect(layout).toMatchObject({ assumed: [], notes: [expect.stringMatching(/^the CMOS says/)] });
});

const ofPc = fixtures.filter(({ name }) => name.startsWith('pc-') && !name.includes('hugepages'));

it.each(ofPc)('the image of $name is its RAM, with the ROMs in the place of shadow RAM', async (fixture) => {
  const image = new RecordingFile('image');
  const { bytes, offset, channels } = fixture;
  await extractPhysical(await opened(bytes, 'file', { offset, channels }), image, { makeScratch });
  const expected = Uint8Array.from(contentOf(fixture, 'pc.ram'));
  expected.set(contentOf(fixture, 'pc.rom'), 0xc0000);
  expected.set(contentOf(fixture, 'pc.bios'), 0xf0000);
  expect(Buffer.compare(image.content(), expected)).toBe(0);
});

it.each(fixtures.filter(({ name }) => name.startsWith('none-')))(
  '$name is refused, and its scratch file is closed',
  async (fixture) => {
    const scratch = new RecordingFile('scratch');
    const { bytes, offset, channels } = fixture;
    const file = await opened(bytes, 'pipe', { offset, channels });
    await expect(openPhysical(file, { makeScratch: () => scratch })).rejects.toThrow(
      /expected a machine whose guest-physical layout is known/,
    );
    expect(scratch.closed).toBe(1);
  },
);

describe('a stream of a hand-made pc', () => {
  const bridge = pciDevice('0000:00:00.0/I440FX', 0x8086_1237);
  const device = ({ name, data }: { name: string; data: Uint8Array }, id: number) => build.full(id, name, data);
  const make = (...devices: Uint8Array[]) =>
    build.join(
      build.header,
      build.configuration('pc-i440fx-10.0'),
      build.start(7, 'ram', 4, build.blockList(['pc.ram', 4 * MiB]), build.EOS),
      build.part(7, build.normalPage(0, build.filled(1), 'pc.ram'), build.EOS),
      build.ramEnd,
      device(bridge, 2),
      device(rtc(4 * MiB, 0), 3),
      ...devices,
      build.EOF,
    );

  it('has an image without a description, and reports how many pages were never sent', async () => {
    const memory = await openPhysical(await opened(make()), { makeScratch });
    expect(memory.layout).toMatchObject({ ramEnd: 4 * MiB, splitFrom: 'cmos' });
    expect(memory.absentPages.map(({ block, pages }) => [block.idstr, pages])).toEqual([['pc.ram', 1023]]);
    await memory.close();
  });

  it.each([
    ['no CPU', make(), /the file has no CPU state/],
    [
      'a CPU without a description',
      make(build.full(4, 'cpu', new Uint8Array(100))),
      /CPU 0 cannot be read: there is no description/,
    ],
  ])('has no core file with %s', async (_, stream, message) => {
    const memory = await openPhysical(await opened(stream), { makeScratch });
    expect(() => memory.core()).toThrow(message);
    await memory.close();
  });
});

describe('memory devices of a hand-made pc', () => {
  const tables = new Uint8Array(4096);
  tables.set(
    srat([
      { node: 0, base: 0, length: 0xa0000 },
      { node: 0, base: MiB, length: 3 * MiB },
      { node: 0, base: 2 ** 32, length: 2 ** 30, flags: 3 },
    ]),
    64,
  );
  const blocks: [string, number][] = [
    ['memdimm1', 2 * MiB],
    ['memdimm0', 2 * MiB],
    ['pc.ram', 4 * MiB],
    ['/rom@etc/acpi/tables', 128 << 10],
  ];
  const bridge = pciDevice('0000:00:00.0/I440FX', 0x8086_1237);
  const stream = build.join(
    build.header,
    build.configuration('pc-i440fx-10.0'),
    build.start(7, 'ram', 4, build.blockList(...blocks), build.EOS),
    build.part(
      7,
      build.normalPage(0, build.filled(1), 'memdimm0'),
      build.normalPage(0, build.filled(2), 'memdimm1'),
      build.normalPage(0, tables, '/rom@etc/acpi/tables'),
      build.EOS,
    ),
    build.ramEnd,
    build.full(2, bridge.name, bridge.data),
    build.EOF,
  );
  const xmlOf = (...devices: string[]) =>
    `<domain type="kvm"><name>vm</name><devices>${devices.join('')}</devices></domain>`;
  const dimm = (slot: number, base: string, more = '') =>
    `<memory model="dimm">${more}<address type="dimm" slot="${slot}" base="${base}"/></memory>`;
  const imageOf = (xml: string) =>
    build.join(encodeLibvirtHead({ xml, cookie: undefined, format: 'raw', wasRunning: false }), stream);

  it('are assumed to follow each other, with their content', async () => {
    const image = new MemoryFile('image');
    const { layout } = await extractPhysical(await opened(stream), image, { makeScratch });
    expect(layout.assumed.map(({ blocks: [name], address }) => [name, address])).toEqual([
      ['memdimm1', 2 ** 32],
      ['memdimm0', 2 ** 32 + 2 * MiB],
    ]);
    expect([bytesAt(image, 2 ** 32, 1)[0], bytesAt(image, 2 ** 32 + 2 * MiB, 1)[0]]).toEqual([2, 1]);
  });

  it.each([
    ['by their slots', xmlOf(dimm(0, '0x110000000'), dimm(1, '0x120000000'))],
    [
      'by their aliases',
      xmlOf(dimm(5, '4563402752', '<alias name="dimm0"/>'), dimm(6, '0x120000000', '<alias name="dimm1"/>')),
    ],
  ])('are where the XML of a libvirt image says, %s', async (_, xml) => {
    const image = new MemoryFile('image');
    const { layout } = await extractPhysical(await opened(imageOf(xml)), image, { makeScratch });
    expect(layout).toMatchObject({ assumed: [], memoryDevices: [{ from: 'libvirt' }, { from: 'libvirt' }] });
    expect([bytesAt(image, 0x110000000, 1)[0], bytesAt(image, 0x120000000, 1)[0]]).toEqual([1, 2]);
  });

  it.each([
    ['is damaged', '<domain><name>vm</name>'],
    [
      'has no addresses',
      xmlOf('<memory model="dimm"><address type="dimm" slot="0"/></memory>', dimm(7, '0x130000000')),
    ],
  ])('are assumed if the XML %s', async (_, xml) => {
    const { layout } = await extractPhysical(await opened(imageOf(xml)), new MemoryFile('image'), { makeScratch });
    expect(layout.assumed.length).toBe(2);
  });
});

it('the core file of 32-bit CPUs is readable', async () => {
  const core = new RecordingFile('core');
  await extractElf(await opened(named('pc-xbzrle-10.0').bytes), core, { makeScratch });
  const { machine, notes, segments } = decodeCore(core.content());
  expect(machine).toBe(3);
  expect(notes.map(({ name, content }) => [name, content.length])).toEqual([
    ['CORE', 144],
    ['QEMU', 440],
  ]);
  expect(segments.slice(1).map(({ physical, length }) => [physical, length])).toEqual([
    [0, 0xc0000],
    [0xc0000, 0x20000],
    [0xe0000, 0x10000],
    [0xf0000, 0x10000],
    [MiB, MiB],
    [0xffff0000, 0x10000],
  ]);
});
