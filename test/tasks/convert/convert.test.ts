/** Conversion of every fixture: to a stream, to a mapped-ram file, and back. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../../src/io/byte-source.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { StreamSource } from '../../../src/io/stream-source.ts';
import { NodeCodecs, open } from '../../../src/node.ts';
import type { MigrationFile } from '../../../src/read/open.ts';
import { digestContent, openSavedVm } from '../../../src/store/ram-content.ts';
import { CopyError } from '../../../src/tasks/convert/check-copy.ts';
import { type Conversion, convertToMappedRam, convertToStream } from '../../../src/tasks/convert/convert.ts';
import { verify } from '../../../src/tasks/inspect/verify.ts';
import { loadContainerFixtures } from '../../container-fixtures.ts';
import { type Fixture, loadFixtures, loadPartedFixtures, type PartedFixture } from '../../fixture-files.ts';
import { chunksOf } from '../../io/sources.ts';
import {
  blockList,
  join as bytesOf,
  capabilities,
  configuration,
  EOF,
  EOS,
  end,
  filled,
  full,
  header,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  start,
  u64,
  zeroPage,
} from '../../oracle/build.ts';
import { RecordingFile } from '../../support/recording-file.ts';

const makeScratch = () => new MemoryFile('scratch');
const codecs = new NodeCodecs();

/** A migration, and the known facts about its RAM. */
interface Input {
  name: string;
  openIt: () => Promise<MigrationFile>;
  truth: Fixture['truth'];
}

const ofFixture = (fixture: Fixture & Partial<PartedFixture>): Input => {
  const { name, bytes, channels, offset, truth, resumeOf = [], preempt = [] } = fixture;
  return { name, truth, openIt: () => open(bytes, { offset, channels, resumeOf, preempt, codecs }) };
};

const inputs: Input[] = [
  ...loadFixtures().map(ofFixture),
  ...loadPartedFixtures().map(ofFixture),
  ...loadContainerFixtures().flatMap(({ name, bytes, streams }) =>
    streams.map(({ snapshot, truth }) => ({
      name: snapshot === undefined ? name : `${name}#${snapshot}`,
      truth,
      openIt: () => open(bytes, snapshot === undefined ? {} : { snapshot }),
    })),
  ),
];

/** A file as plain values: blocks with their sha256, device states, description, other iterables. */
async function contentOf(file: MigrationFile) {
  const vm = await openSavedVm(file, { makeScratch, devices: true });
  const blocks: Fixture['truth'] = [];
  for (const block of vm.ram.blocks) {
    const hash = createHash('sha256');
    await digestContent(vm.ram, block, hash);
    blocks.push({ idstr: block.idstr, length: block.usedLength, sha256: hash.digest('hex') });
  }
  const devices = vm.devices.map(({ id, name, instanceId, versionId, data }) => ({
    ...{ id, name, instanceId, versionId },
    data: Buffer.from(data).toString('hex'),
  }));
  const iterables: string[] = [];
  for (const { kind, offset, length } of vm.iterables) {
    const bytes = new Uint8Array(length);
    await file.content.read(bytes, offset);
    iterables.push(`${kind} ${Buffer.from(bytes).toString('hex')}`);
  }
  await vm.ram.close();
  return { blocks, devices, description: vm.description?.text, iterables, framing: vm.framing };
}

interface Converted {
  bytes: Uint8Array;
  conversion: Conversion;
}

async function toStream(file: MigrationFile, options: { partial?: boolean } = {}): Promise<Converted> {
  const output = new RecordingFile('stream');
  const conversion = await convertToStream(file, appendTo(output), { makeScratch, ...options });
  expect(conversion.length).toBe(output.size);
  await conversion.check(await open(output));
  await conversion.close();
  return { bytes: output.content(), conversion };
}

async function toMappedRam(file: MigrationFile, offset = 0): Promise<Converted> {
  const output = new RecordingFile('mapped-ram');
  const conversion = await convertToMappedRam(file, output, { offset });
  expect(conversion.length).toBe(output.size - offset);
  await conversion.check(await open(output, { offset }));
  await conversion.close();
  return { bytes: output.content(), conversion };
}

async function expectSound(bytes: Uint8Array, offset = 0): Promise<void> {
  const { findings, ok } = await verify(await open(bytes, { offset }));
  expect(findings.filter(({ severity }) => severity !== 'info').map(({ code }) => code)).toEqual([]);
  expect(ok).toBe(true);
}

describe.each(inputs)('$name', ({ openIt, truth }) => {
  it('becomes a stream, a mapped-ram file and a stream again, with the same content and states', async () => {
    const original = await contentOf(await openIt());
    expect(original.blocks.map(({ idstr, sha256 }) => ({ idstr, sha256 }))).toEqual(
      truth.map(({ idstr, sha256 }) => ({ idstr, sha256 })),
    );
    // A background snapshot has no SWITCHOVER_START.
    const framing = { ...original.framing, switchoverStart: expect.any(Boolean) };
    const stream = await toStream(await openIt());
    expect(await contentOf(await open(stream.bytes))).toEqual({ ...original, framing });
    const mapped = await toMappedRam(await openIt());
    expect(await contentOf(await open(mapped.bytes))).toEqual({ ...original, framing });
    const back = await toStream(await open(mapped.bytes));
    expect(await contentOf(await open(back.bytes))).toEqual({ ...original, framing });
    for (const { bytes } of [stream, mapped, back]) await expectSound(bytes);
  });
});

describe('what cannot be converted', () => {
  const page = normalPage(0, filled(1), 'ram');
  const plain = (...before: Uint8Array[]) =>
    bytesOf(...before, ramStart, part(7, page, EOS), end(7, EOS), full(9, 'timer', [1, 2]), EOF);
  const toMapped = async (bytes: Uint8Array) => convertToMappedRam(await open(bytes), new MemoryFile());

  it('is refused: a mapped-ram file needs a configuration, and the stream has none', async () => {
    const bytes = plain(header);
    await expect(toMapped(bytes)).rejects.toMatchObject({ code: 'unsupported' });
    const { bytes: stream } = await toStream(await open(bytes));
    expect(Buffer.compare(stream, plain(header))).toBe(0);
  });

  const sharing = bytesOf(header, configuration('none', capabilities('x-ignore-shared')));
  const list = (idstr: string): Uint8Array[] => [
    sharing,
    start(7, 'ram', 4, blockList([idstr, KIB4, u64(0)], ['shared', KIB4, u64(0x1000_0000)]), EOS),
  ];
  const ignoring = bytesOf(...list('ram'), part(7, page, EOS), end(7, EOS), EOF);

  it('is refused: ignored shared memory, which has no content for a mapped-ram file', async () => {
    await expect(toMapped(ignoring)).rejects.toMatchObject({ code: 'block-ignored', place: { block: 'shared' } });
    await expect(toStream(await open(ignoring))).rejects.toMatchObject({ code: 'block-ignored' });
  });

  it('stays out with `partial`: a stream still states which shared memory was left out, and where it is', async () => {
    const { bytes, conversion } = await toStream(await open(ignoring), { partial: true });
    expect(Buffer.compare(bytes.subarray(0, ignoring.length), ignoring)).toBe(0);
    expect(Buffer.from(bytes.subarray(ignoring.length)).toString()).toContain('vmferry_incomplete');
    expect(conversion.blocks).toMatchObject([{ dataPages: 1 }, { idstr: 'shared', absentPages: 0, ignored: true }]);
  });

  it('is refused: other iterables from a source that cannot be read twice', async () => {
    const bitmaps = loadFixtures().find(({ name }) => name === 'pc-dirty-bitmaps-10.0') as Fixture;
    const pipe = () => open(new StreamSource(chunksOf(bitmaps.bytes, 4099), 'pipe'));
    await expect(convertToMappedRam(await pipe(), new MemoryFile())).rejects.toMatchObject({
      code: 'unsupported',
      place: { section: 'dirty-bitmap' },
    });
    const output = new RecordingFile();
    await expect(convertToStream(await pipe(), appendTo(output), { makeScratch })).rejects.toThrow(/dirty-bitmap/);
    expect(output.size, 'bytes written before it was refused').toBe(0);
  });

  it('is refused: damaged input; the scratch file is closed', async () => {
    const compressed = loadFixtures().find(({ name }) => name === 'pc-compress-7.2') as Fixture;
    const scratch = new RecordingFile('scratch');
    const output = new RecordingFile();
    const cut = await open(compressed.bytes.subarray(0, -100_000));
    await expect(convertToStream(cut, appendTo(output), { makeScratch: () => scratch })).rejects.toMatchObject({
      code: 'truncated',
    });
    expect([output.size, scratch.closed]).toEqual([0, 1]);
  });
});

describe('a file converted with a base', () => {
  it('contains deltas, and has the content and states of the file', async () => {
    const [plain, xbzrle] = ['pc-plain-10.0', 'pc-xbzrle-10.0'].map((name) =>
      loadFixtures().find((fixture) => fixture.name === name),
    ) as [Fixture, Fixture];
    const output = new RecordingFile();
    const base = await open(plain.bytes);
    const conversion = await convertToStream(await open(xbzrle.bytes), appendTo(output), { makeScratch, base });
    await conversion.check(await open(output.content()));
    const [ram] = conversion.blocks;
    expect(ram?.changes?.deltaPages).toBeGreaterThan(0);
    const original = await contentOf(await open(xbzrle.bytes));
    expect(await contentOf(await open(output.content()))).toEqual(original);
    // The content is also compared, after deltas are applied.
    const changed = output.content().fill(0x5a, 60_000, 60_001);
    await expect(conversion.check(await open(changed))).rejects.toThrow(
      /other content in 1 of \d+ pages|bad-delta|is bad/,
    );
    await conversion.close();
  });
});

describe('reading the output back', () => {
  const fixture = loadFixtures().find(({ name }) => name === 'pc-plain-10.0') as Fixture;

  /** Converts, damages the output, and reads it. */
  async function checkChanged(change: (bytes: Uint8Array) => Uint8Array): Promise<void> {
    const output = new RecordingFile();
    const conversion = await convertToStream(await open(fixture.bytes), appendTo(output), { makeScratch });
    await conversion.check(await open(output.content()));
    await conversion.check(await open(change(output.content())));
  }

  const timerState = (bytes: Uint8Array) => Buffer.from(bytes).indexOf('\x05timer') + 14;
  it.each<[string, (bytes: Uint8Array) => Uint8Array, RegExp]>([
    ['a page', (bytes) => bytes.fill(0x5a, 60_000, 60_001), /other content in 1 of \d+ pages of pc\.ram/],
    ['a device state', (bytes) => bytes.fill(0x5a, timerState(bytes), timerState(bytes) + 1), /another state of timer/],
    ['an end that is missing', (bytes) => bytes.subarray(0, -1), /another description/],
    ['a cut', (bytes) => bytes.subarray(0, bytes.length / 2), /what was written is bad: /],
    [
      'another stream',
      () => loadFixtures().find(({ name }) => name === 'none-plain-10.0')?.bytes as Uint8Array,
      /ram of \d+ bytes in pages of 4096 in the list of RAM blocks/,
    ],
  ])('finds %s', async (_, change, message) => {
    await expect(checkChanged(change)).rejects.toThrow(CopyError);
    await expect(checkChanged(change)).rejects.toThrow(message);
  });
});

describe('comparing a copy of an idle guest with it', () => {
  it('lets other work run, although no file is waited for', async () => {
    const pages = (512 << 20) / KIB4;
    const zeros = Array.from({ length: pages }, (_, page) => zeroPage(page * KIB4, page === 0 ? 'ram' : undefined));
    const list = blockList(['ram', pages * KIB4]);
    const bytes = bytesOf(none, start(7, 'ram', 4, list, EOS), part(7, Buffer.concat(zeros), EOS), ramEnd, EOF);
    const [file, output] = [await open(bytes), new MemoryFile()];
    const conversion = await convertToStream(file, appendTo(output), { makeScratch });
    const copy = await open(output);
    let turns = 0;
    let isChecking = true;
    const count = () => {
      turns++;
      if (isChecking) setImmediate(count);
    };
    setImmediate(count);
    await conversion.check(copy);
    isChecking = false;
    await conversion.close();
    expect(turns).toBeGreaterThan(30);
  });
});
