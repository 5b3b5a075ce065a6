/**
 * Every fixture cut and damaged: an error with its place, or the content that the slow reader finds; never a crash or
 * a hang. VMFERRY_MUTATIONS raises the number of mutations.
 */
import { describe, expect, it } from 'vitest';
import { loadFixtures } from '../fixture-files.ts';
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
