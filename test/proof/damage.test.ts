/**
 * Damages every fixture, and truncates and mixes up the channels and other files of migrations. vmferry must give an
 * error with its place, or the same content as the slow reader; never a crash or a hang. VMFERRY_MUTATIONS sets the
 * number of mutations.
 */
import { describe, expect, it } from 'vitest';
import { NodeCodecs, PortableCodecs } from '../../src/node.ts';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { allCases, moreCases } from '../limits.ts';
import { channelBoundaries, recordBoundaries } from '../oracle/slow-reader.ts';
import { mutate } from './mutate.ts';
import { compareReaders, seededRandom } from './read-fast.ts';

const fixtures = loadFixtures();
const mutations = Number(process.env.VMFERRY_MUTATIONS ?? (allCases ? 10_000 : moreCases ? 400 : 100));
/** Random cuts of a multifd set's channels, which take longer to read. */
const setCuts = allCases ? 30 : moreCases ? 6 : 3;

describe.each(fixtures.filter(({ channels }) => channels.length > 0))('the channels of $name', (fixture) => {
  const { bytes, offset, channels } = fixture;
  const boundaries = channelBoundaries(bytes, offset, channels);
  // Boundaries are by channel number.
  const byNumber = [...channels].sort((a, b) => (a[idOffset] as number) - (b[idOffset] as number));
  const withOne = (i: number, channel: Uint8Array) => byNumber.map((each, j) => (i === j ? channel : each));

  it('are read in any order', async () => {
    expect(await compareReaders(bytes, offset, { channels: [...channels].reverse() })).toBe('equal');
  });

  it('are refused when one is missing, given twice, or cut where a packet or payload begins', async () => {
    for (const [i, channel] of byNumber.entries()) {
      const others = byNumber.filter((_, j) => j !== i);
      // A missing channel leaves a gap in the numbers, except the last. Then no SYNC is missing, but its pages are.
      if (i < others.length) expect(await compareReaders(bytes, offset, { channels: others })).toBe('missing-channels');
      expect(await compareReaders(bytes, offset, { channels: [...others, others[0] as Uint8Array] })).toBe(
        'bad-channel',
      );
      for (const cut of boundaries[i] ?? []) {
        if (cut === channel.length) continue;
        const outcome = await compareReaders(bytes, offset, { channels: withOne(i, channel.slice(0, cut)) });
        // QEMU 7.2 may send packets without pages after the last SYNC; they may be missing.
        if (outcome !== 'equal') expect(['truncated', 'sync-missing', 'missing-channels']).toContain(outcome);
        else expect(channel.length - cut).toBe(emptyPacketLength);
      }
    }
  });

  it(`are refused when cut at ${setCuts} random offsets`, async () => {
    const random = seededRandom(bytes.length + channels.length);
    for (let n = 0; n < setCuts; n++) {
      const i = Math.floor(random() * channels.length);
      const cut = Math.floor(random() * (byNumber[i] as Uint8Array).length);
      const outcome = await compareReaders(bytes, offset, {
        channels: withOne(i, (byNumber[i] as Uint8Array).slice(0, cut)),
      });
      expect(['truncated', 'sync-missing']).toContain(outcome);
    }
  });
});

/** Damage that every channel detects. */
const engines = [new NodeCodecs(), new PortableCodecs()];

/** Offset of a channel's number in its first bytes. */
const idOffset = 24;
/** A packet without pages. */
const emptyPacketLength = 1344;

describe.each(loadPartedFixtures())('$name', ({ name, bytes, resumeOf, preempt }) => {
  const files = [...resumeOf, ...preempt, bytes];
  /** The migration with one of its files replaced. */
  const compare = (index: number, file: Uint8Array) => {
    const all = files.map((each, i) => (i === index ? file : each));
    const parts = { resumeOf: all.slice(0, resumeOf.length), preempt: all.slice(resumeOf.length, -1) };
    return compareReaders(all.at(-1) as Uint8Array, 0, parts);
  };

  it('reads all files like the slow reader', async () => {
    expect(await compare(0, files[0] as Uint8Array)).toBe('equal');
  });

  it('with one file cut or damaged gives an error with its place or equals the slow reader', async () => {
    const random = seededRandom(name.length * 7919 + bytes.length);
    const outcomes = new Map<string, number>();
    for (let i = 0; i < mutations / 20; i++) {
      const index = i % files.length;
      const file = files[index] as Uint8Array;
      const points = [0, file.length, file.indexOf(0x7e), file.lastIndexOf(0x7e), Math.floor(random() * file.length)];
      const damaged =
        i % 3 === 0
          ? { bytes: file.slice(0, Math.floor(random() * file.length)), what: 'cut' }
          : mutate(file, points, random);
      try {
        const outcome = await compare(index, damaged.bytes);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`damage ${i} of file ${index} (${damaged.what})`, { cause: error });
      }
    }
    expect(outcomes.size).toBeGreaterThan(2);
  });
});

describe('seeded mutations', () => {
  const share = Math.ceil(mutations / fixtures.length);
  it.each(fixtures)(`${share} of $name give an error with its place or equal the slow reader`, async (fixture) => {
    const random = seededRandom(fixture.name.length * 7919 + fixture.bytes.length);
    const { channels, offset } = fixture;
    const byNumber = [...channels].sort((a, b) => (a[idOffset] as number) - (b[idOffset] as number));
    // The main stream and the channels in turn.
    const files = [fixture.bytes, ...byNumber];
    const points = [recordBoundaries(fixture.bytes, offset), ...channelBoundaries(fixture.bytes, offset, channels)];
    const outcomes = new Map<string, number>();
    for (let i = 0; i < share; i++) {
      const file = i % files.length;
      const { bytes, what } = mutate(files[file] as Uint8Array, points[file] as number[], random);
      const [main, ...others] = files.map((each, j) => (j === file ? bytes : each)) as [Uint8Array, ...Uint8Array[]];
      try {
        const outcome = await compareReaders(main, offset, { channels: others }, engines[i % engines.length]);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`mutation ${i} (file ${file}, ${what})`, { cause: error });
      }
    }
    // Damage to content alone is read; damage to structure is found, in more than one way among many mutations.
    if (moreCases) expect(outcomes.size).toBeGreaterThan(allCases ? 2 : 1);
  });
});
