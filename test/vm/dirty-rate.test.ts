import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/tasks/estimate/seeded-random.ts';
import { reportedDirtyRate, sampleCount, samplePagesOf } from '../../src/vm/dirty-rate.ts';

const MiB = 1 << 20;
const block = (usedLength: number) => ({ index: 0, idstr: 'ram', usedLength, pageSize: 4096 });

// Facts: docs/formats/dirty-rate.md, sections 3 and 4.
describe('the samples of calc-dirty-rate', () => {
  it.each([
    [160 * MiB, 512, 80],
    [2 ** 30, 512, 512],
    [2 ** 40, 16384, 2 ** 24],
    [2 * MiB, 512, 1],
    [2 * MiB - 4096, 512, 0],
    [128 << 10, 16384, 2],
    [124 << 10, 16384, 0],
  ])('of a block of %i bytes at %i per GiB are %i', (bytes, perGiB, count) => {
    expect(sampleCount(block(bytes), perGiB)).toBe(count);
  });

  it('never include the last page of a block, and include all others', () => {
    const seen = new Set<number>();
    const isDirty = (_: unknown, page: number) => seen.add(page).size > 0;
    samplePagesOf([block(MiB)], 2 ** 21, seededRandom(1), isDirty);
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 255 }, (_, page) => page));
  });

  it('are the same for the same seed', () => {
    const pages = (seed: number) => {
      const chosen: number[] = [];
      samplePagesOf([block(64 * MiB)], 512, seededRandom(seed), (_, page) => chosen.push(page) > 0);
      return chosen;
    };
    expect(pages(7)).toEqual(pages(7));
    expect(pages(7)).not.toEqual(pages(8));
    expect(pages(7)).toHaveLength(32);
  });

  it('are missing for blocks that are too small', () => {
    const sampled = samplePagesOf([block(64 << 10)], 16384, seededRandom(1), () => true);
    expect(sampled).toEqual({ samples: 0, dirty: 0, totalMiB: 0 });
    expect(reportedDirtyRate(sampled, 1000)).toBeUndefined();
  });
});

describe('the rate that calc-dirty-rate reports', () => {
  it('equals that of a guest whose samples were traced', () => {
    expect(reportedDirtyRate({ samples: 2564, dirty: 139, totalMiB: 160 }, 1004)).toBe(8);
  });

  it('is truncated, and exact for large numbers', () => {
    expect(reportedDirtyRate({ samples: 2, dirty: 1, totalMiB: 1999 }, 1000)).toBe(999);
    expect(reportedDirtyRate({ samples: 2 ** 24, dirty: 2 ** 24, totalMiB: 2 ** 26 }, 1)).toBe(2 ** 26 * 1000);
  });

  it('for random pages is close to the dirty share', () => {
    const random = seededRandom(3);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 99 }), (percent) => {
        const sampled = samplePagesOf([block(2 ** 30)], 16384, random, (_, page) => page % 100 < percent);
        expect(sampled.dirty / sampled.samples).toBeCloseTo(percent / 100, 1);
      }),
      { numRuns: 20 },
    );
  });
});
