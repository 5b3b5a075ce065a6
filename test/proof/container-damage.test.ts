/**
 * Truncates and damages libvirt images and qcow2 snapshots. vmferry must give an error with its place, or the same
 * content as the slow reader; never a crash or a hang. VMFERRY_MUTATIONS sets the number of mutations.
 */
import { describe, expect, it } from 'vitest';
import { inspect, MemoryFile, MigrationError, MissingDecompressorError, SnapshotError } from '../../src/index.ts';
import { open } from '../../src/node.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import { type ContainerFixture, loadContainerFixtures } from '../container-fixtures.ts';
import { allCases, moreCases } from '../limits.ts';
import { unwrap } from '../oracle/containers.ts';
import { recordBoundaries, slowRead } from '../oracle/slow-reader.ts';
import { mutate } from './mutate.ts';
import { hangMs, seededRandom } from './read-fast.ts';

const mutations = Number(process.env.VMFERRY_MUTATIONS ?? (allCases ? 10_000 : moreCases ? 400 : 100));
const cuts = allCases ? 60 : moreCases ? 20 : 5;
/** Fixtures that need no program for each body or cluster: starting one takes longer than everything else. */
const fixtures = loadContainerFixtures().filter(({ name }) => !/bzip2|lzop|zstd/.test(name));

/** vmferry's result: an error code, or the content of each block. */
async function readFast(bytes: Uint8Array, snapshot: string | undefined): Promise<string | Map<string, Uint8Array>> {
  try {
    const file = await open(bytes, snapshot === undefined ? {} : { snapshot });
    const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
    const { inspection } = await inspect(file, { sink: store });
    await file.close();
    // A stream that breaks off in its description is whole for QEMU. The slow reader refuses it.
    const error =
      inspection.error ??
      inspection.findings.find(({ severity, code }) => severity === 'error' || code === 'bad-description');
    if (error !== undefined) {
      expect(error.place.source).toMatch(/^memory/);
      expect(error.place.offset).toBeGreaterThanOrEqual(0);
      return error.code;
    }
    const contents = new Map<string, Uint8Array>();
    for (const block of store.blocks) {
      const content = new Uint8Array(block.usedLength);
      await store.read(block, 0, content);
      contents.set(block.idstr, content);
    }
    return contents;
  } catch (error) {
    if (error instanceof SnapshotError) return 'no such snapshot';
    // The damage turned it into another format.
    if (error instanceof MissingDecompressorError) return 'no decompressor';
    if (!(error instanceof MigrationError)) throw error;
    expect(error.place.source).toMatch(/^memory/);
    expect(error.place.offset).toBeGreaterThanOrEqual(0);
    return error.code;
  }
}

/** Compares vmferry with the slow reader. Returns vmferry's error code, or `equal`. */
async function compare(bytes: Uint8Array, snapshot: string | undefined): Promise<string> {
  const before = process.cpuUsage();
  const fast = await readFast(bytes, snapshot);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(hangMs);
  if (typeof fast === 'string') return fast;
  const inner = unwrap(bytes, snapshot);
  const { blocks } = slowRead(inner.bytes, inner.offset);
  expect([...fast.keys()]).toEqual(blocks.map(({ idstr }) => idstr));
  for (const { idstr, content } of blocks) {
    if (Buffer.compare(fast.get(idstr) as Uint8Array, content) !== 0)
      throw new Error(`the content of ${idstr} differs`);
  }
  return 'equal';
}

/** Offsets of a container's metadata, and of some of the records in its stream. */
function pointsOf({ name, bytes }: ContainerFixture): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (name.startsWith('libvirt')) {
    const offset = 92 + view.getUint32(20, true);
    const fields = [0, 8, 16, 20, 24, 28, 32, 92, 92 + view.getUint32(32, true)];
    const isPlain = /raw|sparse/.test(name);
    const records = isPlain
      ? recordBoundaries(bytes, offset).filter((_, i) => i % 20 === 0)
      : [offset, bytes.length - 8];
    return [...fields, ...fields, ...fields, offset, ...records];
  }
  const points = [0, 4, 20, 24, 32, 60, 64, 72, 100];
  const clusterSize = 2 ** view.getUint32(20);
  const entryLength = name.includes('subclusters') ? 16 : 8;
  let at = Number(view.getBigUint64(64));
  for (let i = 0; i < view.getUint32(60); i++) {
    const extra = view.getUint32(at + 36);
    points.push(at, at + 8, at + 12, at + 36, at + 40, at + 48, at + 40 + extra);
    const l1 = Number(view.getBigUint64(at));
    const diskSize = Number(view.getBigUint64(at + 48));
    const first = Math.ceil(diskSize / ((clusterSize / entryLength) * clusterSize));
    for (let entry = first; entry < view.getUint32(at + 8); entry++) {
      points.push(l1 + 8 * entry);
      const l2 = Number(view.getBigUint64(l1 + 8 * entry) & 0x00fffffffffffe00n);
      for (let k = 0; l2 !== 0 && k < 6; k++) points.push(l2 + k * entryLength);
    }
    const length = 40 + extra + view.getUint16(at + 12) + view.getUint16(at + 14);
    at += Math.ceil(length / 8) * 8;
  }
  return points;
}

it('has containers to damage', () => {
  expect(fixtures.length).toBeGreaterThanOrEqual(8);
});

describe('seeded mutations', () => {
  const share = Math.ceil(mutations / fixtures.length);
  it.each(fixtures)(`${share} of $name give an error with its place or equal the slow reader`, async (fixture) => {
    const random = seededRandom(fixture.name.length * 104_729 + fixture.bytes.length);
    const points = pointsOf(fixture);
    const { snapshot } = fixture.streams[0]!;
    expect(await compare(fixture.bytes, snapshot)).toBe('equal');
    const outcomes = new Map<string, number>();
    for (let i = 0; i < share; i++) {
      const { bytes, what } = mutate(fixture.bytes, points, random);
      try {
        const outcome = await compare(bytes, snapshot);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`mutation ${i} (${what})`, { cause: error });
      }
    }
    expect(outcomes.size).toBeGreaterThan(2);
  });
});

describe('cut anywhere', () => {
  it.each(fixtures)('$name is refused or loses nothing', async (fixture) => {
    const random = seededRandom(fixture.bytes.length);
    const points = pointsOf(fixture);
    const { snapshot } = fixture.streams[0]!;
    for (let i = 0; i < cuts; i++) {
      const near = (points[Math.floor(random() * points.length)] ?? 0) + Math.floor(random() * 20);
      const cut = i % 2 === 0 ? Math.min(fixture.bytes.length - 1, near) : Math.floor(random() * fixture.bytes.length);
      // Other snapshots may follow this snapshot's last cluster.
      expect(await compare(fixture.bytes.slice(0, cut), snapshot)).toBeTypeOf('string');
    }
  });
});
