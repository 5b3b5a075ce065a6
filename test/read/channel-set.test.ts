import { describe, expect, it } from 'vitest';
import { MemoryFile, open } from '../../src/index.ts';
import { chooseChannels, readMainFacts, type ScannedChannel, scanChannel } from '../../src/read/channel-set.ts';
import { loadFixtures } from '../fixture-files.ts';

const fixtures = loadFixtures();
const sets = fixtures.filter(({ name, channels = [] }) => channels.length > 0 && !name.includes('mapped'));
const setOf = (wanted: string) => sets.find(({ name }) => name === wanted)!;

/** The channels of a fixture as they are beside a main stream: named by their numbers. */
async function scan(fixture: (typeof sets)[number], as: string, pageSize = 4096): Promise<ScannedChannel[]> {
  const scanned = [];
  for (const bytes of fixture.channels ?? []) scanned.push(await scanChannel(new MemoryFile('', bytes), pageSize));
  return scanned.map((channel) => ({ ...channel!, name: `${as}.${channel!.id}` })).sort((a, b) => a.id - b.id);
}

const factsOf = async (bytes: Uint8Array) => (await readMainFacts(await open(bytes)))!;

describe('the channels of a main stream', () => {
  it.each(sets.map(({ name }) => name))('of %s fit', async (name) => {
    const facts = await factsOf(setOf(name).bytes);
    const channels = await scan(setOf(name), 'set', facts.pageSize);
    expect(channels.every(({ isWhole, syncs }) => isWhole && syncs.length === facts.marks)).toBe(true);
    expect(chooseChannels(facts, channels)).toEqual({ channels: channels.map((each) => each.name), refused: [] });
  });

  it.each(fixtures.filter(({ channels = [] }) => channels.length === 0).map(({ name }) => name))(
    'are not sought for %s',
    async (name) => {
      const { bytes } = fixtures.find((fixture) => fixture.name === name)!;
      const facts = await readMainFacts(await open(bytes).catch(() => open(new Uint8Array(8))));
      // A stream without page data could be a main stream; channels that answer its marks decide.
      if (facts !== undefined) expect(name).toMatch(/none-|postcopy|preempt|recovery/);
    },
  );

  // The saves have the same UUID, and those of 10.0 the same number of marks.
  it.each([
    ['pc-multifd-none-zero-none-10.0', 'pc-multifd-none-zero-multifd-10.0'],
    ['pc-multifd-zlib-zero-none-10.0', 'pc-multifd-zlib-zero-multifd-10.0'],
    ['pc-multifd-none-zero-none-10.0', 'pc-multifd-old-machine-10.0'],
    ['pc-multifd-zstd-7.2', 'pc-multifd-none-7.2'],
    ['pc-multifd-zstd-7.2', 'pc-multifd-zlib-7.2'],
  ])('do not include two that are left over from %s beside %s', async (before, after) => {
    const facts = await factsOf(setOf(after).bytes);
    const channels = await scan(setOf(after), 'set');
    const leftovers = (await scan(setOf(before), 'set')).slice(2);
    const chosen = chooseChannels(facts, [...leftovers, ...channels]);
    expect(chosen.channels).toEqual(['set.0', 'set.1']);
    expect(chosen.refused.map(({ name }) => name)).toEqual(['set.2', 'set.3']);
    for (const { reason } of chosen.refused) expect(reason).toMatch(/packet|SYNC/);
  });

  it('are all refused if two have the same packets and nothing shows which is right', async () => {
    const facts = await factsOf(setOf('pc-multifd-none-zero-multifd-10.0').bytes);
    const [own] = await scan(setOf('pc-multifd-none-zero-multifd-10.0'), 'set');
    const [, other] = await scan(setOf('pc-multifd-none-zero-none-10.0'), 'set');
    expect(own?.syncs.length).toBe(other?.syncs.length);
    expect(chooseChannels(facts, [own!, other!])).toEqual({
      channels: [],
      refused: ['set.0', 'set.1'].map((name) => ({
        name,
        reason: expect.stringMatching(/both have packet \d+: they are of different saves/),
      })),
    });
  });

  it('are refused by their UUID, number and SYNCs', async () => {
    const { bytes } = setOf('none-multifd-uuid-10.0');
    const facts = await factsOf(bytes);
    const [first, second] = (await scan(setOf('none-multifd-uuid-10.0'), 'set')) as [ScannedChannel, ScannedChannel];
    const refusal = (changed: Partial<ScannedChannel>, main = facts) =>
      chooseChannels(main, [first, { ...second, ...changed }]).refused[0]?.reason;
    expect(refusal({})).toBeUndefined();
    const silent = { ...facts, uuid: undefined };
    expect(refusal({ uuid: '0'.repeat(32) }, silent)).toMatch(/its guest UUID is 0{32}, that of set.0 /);
    expect(refusal({}, { ...facts, uuid: '1'.repeat(32) })).toMatch(/that of the main stream 1{32}/);
    expect(refusal({ id: 0 })).toBe('it is channel 0, and so is set.0');
    expect(refusal({ syncs: [1, 9] })).toBe('it has 2 SYNCs, and the main stream has 3 marks');
    expect(refusal({ syncs: [1, 9, 12, 14] })).toBe('it has 4 SYNCs, and the main stream has 3 marks');
    // A main stream or channel that breaks off proves nothing about the rest.
    expect(refusal({ syncs: [1, 9], isWhole: false })).toBeUndefined();
    expect(refusal({ syncs: [1, 9, 12, 14] }, { ...facts, isWhole: false })).toBeUndefined();
  });

  it('may have a gap: the reader reports the missing channel', async () => {
    const facts = await factsOf(setOf('pc-multifd-none-zero-none-10.0').bytes);
    const channels = await scan(setOf('pc-multifd-none-zero-none-10.0'), 'set');
    const chosen = chooseChannels(facts, channels.toSpliced(1, 1));
    expect(chosen).toEqual({ channels: ['set.0', 'set.2', 'set.3'], refused: [] });
  });

  it('are not files that begin otherwise', async () => {
    expect(await scanChannel(new MemoryFile('', new Uint8Array(100)), 4096)).toBeUndefined();
    expect(await scanChannel(new MemoryFile('', new Uint8Array(3)), 4096)).toBeUndefined();
  });
});
