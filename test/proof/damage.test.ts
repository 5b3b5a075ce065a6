/**
 * Every fixture cut and damaged: an error with its place, or the content that the slow reader finds; never a crash or
 * a hang. VMFERRY_MUTATIONS raises the number of mutations.
 */
import { describe, expect, it } from 'vitest';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { recordBoundaries } from '../oracle/slow-reader.ts';
import { mutate } from './mutate.ts';
import { compareReaders, seededRandom } from './read-fast.ts';

const fixtures = loadFixtures();
const mutations = Number(process.env.VMFERRY_MUTATIONS ?? 2000);
const randomCuts = 500;

it('has fixtures to damage', () => {
  expect(fixtures.length).toBeGreaterThanOrEqual(8);
});

describe.each(fixtures)('$name', ({ bytes, offset }) => {
  const boundaries = recordBoundaries(bytes, offset);

  it('reads whole as the slow reader does', async () => {
    expect(await compareReaders(bytes, offset)).toSatisfy(
      (outcome) => outcome === 'equal' || outcome === 'unsupported',
    );
  });

  it('is refused when cut at any record boundary, but after its EOF byte', async () => {
    const equal: number[] = [];
    for (const cut of boundaries) {
      if (cut >= bytes.length || cut < offset) continue;
      if ((await compareReaders(bytes.slice(0, cut), offset)) === 'equal') equal.push(cut);
    }
    // Right after EOF the stream is complete, only without its description.
    expect(equal.length).toBeLessThanOrEqual(1);
    for (const cut of equal) expect(bytes[cut - 1]).toBe(0);
  });

  it(`is refused when cut at ${randomCuts} random offsets`, async () => {
    const random = seededRandom(bytes.length);
    for (let i = 0; i < randomCuts; i++) {
      const cut = Math.floor(random() * bytes.length);
      const outcome = await compareReaders(bytes.slice(0, cut), offset);
      if (outcome === 'equal') expect(bytes[cut - 1]).toBe(0);
    }
  });
});

describe.each(loadPartedFixtures())('$name', ({ name, bytes, resumeOf, preempt }) => {
  const files = [...resumeOf, ...preempt, bytes];
  /** The migration with one of its files replaced. */
  const compare = (index: number, file: Uint8Array) => {
    const all = files.map((each, i) => (i === index ? file : each));
    const parts = { resumeOf: all.slice(0, resumeOf.length), preempt: all.slice(resumeOf.length, -1) };
    return compareReaders(all.at(-1) as Uint8Array, 0, parts);
  };

  it('reads whole as the slow reader does', async () => {
    expect(await compare(0, files[0] as Uint8Array)).toBe('equal');
  });

  it('with one file cut or damaged gives an error with its place, or equals the slow reader', async () => {
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
    const points = recordBoundaries(fixture.bytes, fixture.offset);
    const outcomes = new Map<string, number>();
    for (let i = 0; i < share; i++) {
      const { bytes, what } = mutate(fixture.bytes, points, random);
      try {
        const outcome = await compareReaders(bytes, fixture.offset);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`mutation ${i} (${what})`, { cause: error });
      }
    }
    // Damage that changes nothing but content is read; damage to structure is found.
    expect(outcomes.size).toBeGreaterThan(2);
  });
});
