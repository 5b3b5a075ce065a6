import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { extractElf, extractPhysical, openPhysical } from '../../../src/tasks/extract/physical.ts';
import { loadFixtures } from '../../fixture-files.ts';
import * as build from '../../oracle/build.ts';
import { slowRead } from '../../oracle/slow-reader.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { RecordingFile } from '../../support/recording-file.ts';
import { decodeCore } from './decode-core.ts';
import { pciDevice, rtc } from './pc-devices.ts';

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
    await expect(openPhysical(file, { makeScratch: () => scratch })).rejects.toThrow(/expected a machine pc or q35/);
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
