/** Conversion of every fixture: to a stream, to a mapped-ram file, and back. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { type Conversion, convertToMappedRam, convertToStream } from '../../src/file/convert.ts';
import type { MigrationFile } from '../../src/file/open.ts';
import { digestContent, openSavedVm } from '../../src/file/ram-content.ts';
import { verify } from '../../src/file/verify.ts';
import { appendTo } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs, open } from '../../src/node.ts';
import { loadContainerFixtures } from '../container-fixtures.ts';
import { type Fixture, loadFixtures, loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import { RecordingFile } from './recording-file.ts';

const makeScratch = () => new MemoryFile('scratch');
const codecs = new NodeCodecs();

/** A migration, and what is known of its RAM. */
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

async function toStream(file: MigrationFile): Promise<Converted> {
  const output = new RecordingFile('stream');
  const conversion = await convertToStream(file, appendTo(output), { makeScratch });
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
    // SWITCHOVER_START, which a background snapshot has not.
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
