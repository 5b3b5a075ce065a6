import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageSet } from '../../../src/tasks/estimate/cache-slots.ts';
import { measureChanges } from '../../../src/tasks/estimate/ram-changes.ts';
import { seededRandom } from '../../../src/tasks/estimate/seeded-random.ts';
import { seeded, variants } from '../../kernel/arena.ts';
import { xbzrleEncode } from '../../kernel/oracle.ts';
import { PlainRam } from '../../support/plain-ram.ts';

const page = 1024;
const join = (pages: Uint8Array[]) => new PlainRam(new Uint8Array(pages.flatMap((bytes) => [...bytes])), page);
const options = { intervalMs: 1000, samplePages: 512, random: seededRandom(1) };

const fates = ['same', 'zero', 'stays zero', 'from zero', 'few bytes', 'rewritten', 'every other byte'] as const;

function pairOf(fate: (typeof fates)[number], seed: number): [Uint8Array, Uint8Array] {
  const old = seeded(seed + 1).bytes(page);
  const zero = new Uint8Array(page);
  const changed = old.slice();
  if (fate === 'few bytes') changed[seed % page]! ^= 0x55;
  if (fate === 'every other byte') for (let i = 0; i < page; i += 2) changed[i]! ^= 1;
  switch (fate) {
    case 'same':
      return [old, old];
    case 'zero':
      return [old, zero];
    case 'stays zero':
      return [zero, zero];
    case 'from zero':
      return [zero, seeded(seed).bytes(page)];
    case 'rewritten':
      return [old, seeded(seed + 1000).bytes(page)];
    default:
      return [old, changed];
  }
}

describe.each(variants)('changes between two saves (%s)', (variant) => {
  it("equal a page-by-page comparison, and the plain encoder's results", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom(...fates), fc.nat(500)), { minLength: 1, maxLength: 60 }),
        async (list) => {
          const pairs = list.map(([fate, seed]) => pairOf(fate, seed));
          const found = await measureChanges(join(pairs.map(([old]) => old)), join(pairs.map(([, now]) => now)), {
            ...options,
            variant,
          });
          const count = (...wanted: string[]) => list.filter(([fate]) => wanted.includes(fate)).length;
          expect(found.all).toEqual({
            pages: list.length,
            changed: list.length - count('same', 'stays zero'),
            fromZero: count('from zero'),
            toZero: count('zero'),
            rewritten: count('few bytes', 'rewritten', 'every other byte'),
          });
          const encoded = pairs
            .filter(([old, now]) => String(old) !== String(now) && now.some((byte) => byte !== 0))
            .map(([old, now]) => xbzrleEncode(old, now)?.length);
          const lengths = encoded.filter((length) => length !== undefined).sort((a, b) => a - b);
          expect(found.xbzrle).toMatchObject({
            pages: encoded.length,
            overflow: encoded.length - lengths.length,
            median: lengths[Math.ceil(lengths.length / 2) - 1] ?? 0,
          });
          const mean = lengths.reduce((sum, length) => sum + length, 0) / Math.max(1, lengths.length);
          expect(found.xbzrle!.mean).toBeCloseTo(mean);
          expect(found.xbzrle!.histogram.reduce((sum, { pages }) => sum + pages, 0)).toBe(lengths.length);
        },
      ),
      { numRuns: 60 },
    );
  });
});

it('give the dirty rate of the formula', async () => {
  const old = new PlainRam(new Uint8Array(8 << 20), 4096);
  const now = new PlainRam(new Uint8Array(8 << 20).fill(1), 4096);
  const { sampled } = await measureChanges(old, now, { ...options, intervalMs: 500 });
  expect(sampled).toEqual({ samples: 4, dirty: 4, totalMiB: 8, perGiB: 512, rate: 16 });
});

it('are refused for different VMs', async () => {
  const small = new PlainRam(new Uint8Array(page), page);
  const large = new PlainRam(new Uint8Array(2 * page), page);
  await expect(measureChanges(small, large, options)).rejects.toThrow(
    'RAM block ram: expected 1024 bytes in pages of 1024 in the later file too, got 2048 bytes in pages of 1024',
  );
  const other = new PlainRam(new Uint8Array(page), page);
  Object.assign(other, { blocks: [{ ...other.block, idstr: 'pc.ram' }] });
  await expect(measureChanges(small, other, options)).rejects.toThrow('the later file has no RAM block ram');
});

describe('slots of the cache', () => {
  it('are as many as a count one by one', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3000 }), fc.array(fc.nat(), { maxLength: 300 }), (pages, wanted) => {
        const set = new PageSet(pages);
        const numbers = new Set(wanted.map((number) => number % pages));
        for (const number of numbers) set.add(number);
        expect(set.size).toBe(numbers.size);
        const found = set.aloneBySlots();
        expect(found[0]!.slots).toBe(32);
        expect(found.at(-1)!.slots).toBeGreaterThanOrEqual(pages);
        for (const { slots, alone } of found) {
          const bySlot = new Map<number, number>();
          for (const number of numbers) bySlot.set(number % slots, (bySlot.get(number % slots) ?? 0) + 1);
          expect(alone).toBe([...bySlot.values()].filter((count) => count === 1).length);
        }
      }),
    );
  });

  it('give the smallest cache in which every changed page has its own slot', async () => {
    // 40 pages in a row need 64 slots.
    const old = new Uint8Array(256 * page);
    const now = old.slice().fill(1, 100 * page, 140 * page);
    const { cache } = await measureChanges(new PlainRam(old, page), new PlainRam(now, page), options);
    expect(cache.all).toEqual({ bytes: 64 * page, share: 1 });
    expect(cache.shareOfDefault).toBe(1);
  });
});
