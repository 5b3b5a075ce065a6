import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DistinctPages } from '../../../src/tasks/estimate/distinct-pages.ts';
import { measureComposition } from '../../../src/tasks/estimate/memory-composition.ts';
import { measureEntropy } from '../../../src/tasks/estimate/page-entropy.ts';
import { groupBytes, PageSample } from '../../../src/tasks/estimate/page-sample.ts';
import { seededRandom } from '../../../src/tasks/estimate/seeded-random.ts';
import { seeded, variants } from '../../kernel/arena.ts';
import { PlainRam } from '../../support/plain-ram.ts';

const page = 1024;
/** Pages of few contents, so that many are equal. */
const contents = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('zero' as const), value: fc.constant(0) }),
    fc.record({ kind: fc.constant('same' as const), value: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ kind: fc.constant('data' as const), value: fc.nat(20) }),
    fc.record({ kind: fc.constant('nearly' as const), value: fc.integer({ min: 1, max: page - 1 }) }),
  ),
  { maxLength: 60 },
);

function pageOf({ kind, value }: { kind: string; value: number }): Uint8Array {
  if (kind === 'data') return seeded(value).bytes(page);
  const bytes = new Uint8Array(page).fill(kind === 'same' ? value : kind === 'nearly' ? 7 : 0);
  if (kind === 'nearly') bytes[value] = 8;
  return bytes;
}

describe.each(variants)('the composition of memory (%s)', (variant) => {
  it('equals a count of pages one by one', async () => {
    await fc.assert(
      fc.asyncProperty(contents, async (list) => {
        const pages = list.map(pageOf);
        const ram = new PlainRam(new Uint8Array(pages.flatMap((bytes) => [...bytes])), page);
        const { all, layout } = await measureComposition(ram, { variant });
        const isSame = (bytes: Uint8Array) => bytes.every((byte) => byte === bytes[0]);
        const zero = pages.filter((bytes) => isSame(bytes) && bytes[0] === 0).length;
        const sameByte = pages.filter(isSame).length - zero;
        const others = pages.filter((bytes) => !isSame(bytes)).map(String);
        const distinct = new Set(others).size;
        const duplicate = others.length - distinct;
        expect(all).toEqual({ pages: pages.length, absent: undefined, zero, sameByte, duplicate, distinct });
        expect(layout.dataPages.reduce((sum, count) => sum + count, 0)).toBe(pages.length - zero);
      }),
      { numRuns: 60 },
    );
  });
});

it('shows where the data is in memory', async () => {
  const bytes = new Uint8Array(512 * page);
  bytes.fill(1, 300 * page, 304 * page);
  const { layout } = await measureComposition(new PlainRam(bytes, page));
  expect(layout.pagesPerPart).toBe(2);
  expect(layout.dataPages.flatMap((count, i) => (count === 0 ? [] : [[i, count]]))).toEqual([
    [150, 2],
    [151, 2],
  ]);
});

describe('the set of hashes', () => {
  const random = seededRandom(1);
  const hash = () => Math.floor(random() * 2 ** 32);

  it('contains every hash until it is full', () => {
    const set = new DistinctPages(1 << 16);
    const hashes = Array.from({ length: 30_000 }, () => [hash(), hash()] as const);
    expect(hashes.map(([high, low]) => set.add(high, low)).filter((count) => count > 0)).toEqual([]);
    expect(set.weight).toBe(1);
    expect(new Set(hashes.map(([high, low]) => set.add(high, low)))).toEqual(new Set([1]));
  });

  it('estimates if there are more than it can hold', () => {
    const set = new DistinctPages(1 << 14);
    const hashes = Array.from({ length: 200_000 }, () => [hash(), hash()] as const);
    let duplicates = 0;
    // Every third page is a copy of an earlier one.
    for (const [i, [high, low]] of hashes.entries()) {
      duplicates += set.add(high, low);
      if (i % 2 === 1) duplicates += set.add(...(hashes[Math.floor(i / 2)] as [number, number]));
    }
    expect(set.weight).toBe(32);
    expect(duplicates / 100_000).toBeGreaterThan(0.95);
    expect(duplicates / 100_000).toBeLessThan(1.05);
  });
});

describe('the sample of pages', () => {
  const perGroup = groupBytes / 4096;
  const take = (groups: number, pages: number, seed: number, endEvery = Number.POSITIVE_INFINITY) => {
    const sample = new PageSample(groups, seededRandom(seed));
    const bytes = new Uint8Array(4096);
    for (let i = 0; i < pages; i++) {
      new DataView(bytes.buffer).setUint32(0, i);
      sample.take(bytes, 0, 4096);
      if ((i + 1) % endEvery === 0) sample.endBlock();
    }
    return sample;
  };
  const numbers = ({ bytes }: { bytes: Uint8Array }) =>
    Array.from({ length: bytes.length / 4096 }, (_, i) =>
      new DataView(bytes.buffer, bytes.byteOffset).getUint32(i * 4096),
    );

  it('is everything, if that is little', () => {
    const sample = take(4, perGroup * 2 + 5, 1);
    expect(sample.seen).toBe(3);
    expect(sample.groups.flatMap(numbers)).toEqual(Array.from({ length: perGroup * 2 + 5 }, (_, i) => i));
  });

  it('has groups of neighbours, none twice, and the same ones for the same seed', () => {
    const sample = take(8, perGroup * 100, 5);
    expect(sample.seen).toBe(100);
    const groups = sample.groups.map(numbers);
    for (const group of groups) expect(group).toEqual(Array.from({ length: perGroup }, (_, i) => group[0]! + i));
    expect(new Set(groups.map(([first]) => first)).size).toBe(8);
    expect(take(8, perGroup * 100, 5).groups.map(numbers)).toEqual(groups);
    expect(take(8, perGroup * 100, 6).groups.map(numbers)).not.toEqual(groups);
  });

  it('has no group across two blocks', () => {
    expect(take(100, 300, 1, 100).groups.map(({ bytes }) => bytes.length / 4096)).toEqual([100, 100, 100]);
  });

  it('gives every group the same chance', () => {
    const chosen = new Array<number>(20).fill(0);
    for (let seed = 0; seed < 400; seed++) {
      for (const group of take(5, perGroup * 20, seed * 7919).groups) chosen[numbers(group)[0]! / perGroup]!++;
    }
    // 100 each, with a standard deviation of 9.
    for (const times of chosen) expect(Math.abs(times - 100)).toBeLessThan(45);
  });
});

describe('entropy', () => {
  const of = (bytes: Uint8Array) => measureEntropy([{ bytes, pageSize: 4096 }]);

  it('is 0 for one byte, 1 bit for two, and 8 bits for all equally often', () => {
    const mixed = (count: number) => Uint8Array.from({ length: 4096 }, (_, i) => i % count);
    expect(of(mixed(1)).meanBits).toBe(0);
    expect(of(mixed(2)).meanBits).toBeCloseTo(1);
    expect(of(mixed(16)).meanBytes).toBeCloseTo(2048);
    expect(of(mixed(256)).histogram).toEqual([0, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('is computed for each page separately', () => {
    const pages = new Uint8Array(8192).fill(9, 0, 4096).fill(3, 4096);
    expect(of(pages)).toMatchObject({ pages: 2, meanBits: 0, histogram: [2, 0, 0, 0, 0, 0, 0, 0] });
    expect(measureEntropy([])).toMatchObject({ pages: 0, meanBits: 0, meanBytes: 0 });
  });
});
