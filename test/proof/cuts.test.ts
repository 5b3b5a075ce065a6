/**
 * Truncates every fixture between records (at a sample if there are many) and at random offsets. vmferry must give an
 * error with its place, or the same content as the slow reader; never a crash or a hang. VMFERRY_CUTS is the number of
 * random offsets, and half of the maximum number of cuts between records.
 */
import { describe, expect, it } from 'vitest';
import { loadFixtures } from '../fixture-files.ts';
import { allCases, moreCases } from '../limits.ts';
import { recordBoundaries } from '../oracle/slow-reader.ts';
import { compareReaders, seededRandom } from './read-fast.ts';

const fixtures = loadFixtures();
const randomCuts = Number(process.env.VMFERRY_CUTS ?? (allCases ? 500 : moreCases ? 25 : 6));
/** Cuts between the last records of a stream. */
const lastCuts = allCases ? 100 : moreCases ? 20 : 8;
/** A multifd set takes longer to read, so only some cuts of its main stream are tried. */
const setCuts = Math.min(30, Math.ceil(randomCuts / 4));

it('has fixtures to damage', () => {
  expect(fixtures.length).toBeGreaterThanOrEqual(8);
});

describe.each(fixtures)('$name', ({ bytes, offset, channels }) => {
  const boundaries = recordBoundaries(bytes, offset);

  it('reads the whole file like the slow reader', async () => {
    expect(await compareReaders(bytes, offset, { channels })).toBe('equal');
  });

  it('is refused when cut between records, except after its EOF byte', async () => {
    const equal: number[] = [];
    const most = channels.length > 0 ? setCuts : 2 * randomCuts;
    const step = Math.ceil(boundaries.length / most);
    for (const [i, cut] of boundaries.entries()) {
      // More of the last ones, where every section is different.
      if (i % step !== 0 && (channels.length > 0 || i < boundaries.length - lastCuts)) continue;
      if (cut >= bytes.length || cut <= offset) continue;
      if ((await compareReaders(bytes.slice(0, cut), offset, { channels })) === 'equal') equal.push(cut);
    }
    // Right after EOF the stream is complete except for its description.
    expect(equal.length).toBeLessThanOrEqual(1);
    for (const cut of equal) expect(bytes[cut - 1]).toBe(0);
  });

  const cuts = channels.length > 0 ? setCuts : randomCuts;
  it(`is refused when cut at ${cuts} random offsets`, async () => {
    const random = seededRandom(bytes.length);
    for (let i = 0; i < cuts; i++) {
      const cut = offset + 1 + Math.floor(random() * (bytes.length - offset - 1));
      const outcome = await compareReaders(bytes.slice(0, cut), offset, { channels });
      if (outcome === 'equal') expect(bytes[cut - 1]).toBe(0);
    }
  });
});
