/** Curves through measurements of different lengths. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Dirtying } from '../../../src/tasks/estimate/dirtying.ts';
import { dirtyingThroughAll } from '../../../src/tasks/estimate/measured-dirtying.ts';

const at = (curves: readonly Dirtying[], name: string, t: number) =>
  curves.find((curve) => curve.name === name)?.dirtied(t) as number;
const seconds = [0.1, 1, 5, 20];

describe('the curves', () => {
  it('contain a guest that writes to random pages of a set, and one that goes round and round', () => {
    const rates = fc.double({ min: 10, max: 1e5, noNaN: true });
    const sets = fc.integer({ min: 10, max: 100_000 });
    fc.assert(
      fc.property(rates, sets, fc.boolean(), (rate, set, isRandom) => {
        const truth = (t: number) => (isRandom ? -set * Math.expm1((-rate * t) / set) : Math.min(set, rate * t));
        const curves = dirtyingThroughAll(
          seconds.map((t) => ({ seconds: t, pages: truth(t) })),
          1e6,
        );
        for (const t of [0.02, 0.1, 0.3, 0.7, 1, 2, 5, 12, 20, 40]) {
          expect(at(curves, 'least', t)).toBeLessThanOrEqual(truth(t) * 1.0001 + 1e-6);
          expect(at(curves, 'most', t)).toBeGreaterThanOrEqual(truth(t) * 0.9999 - 1e-6);
          expect(at(curves, 'likely', t)).toBeGreaterThanOrEqual(at(curves, 'least', t) * 0.9999 - 1e-6);
          expect(at(curves, 'likely', t)).toBeLessThanOrEqual(at(curves, 'most', t) * 1.0001 + 1e-6);
        }
      }),
    );
  });

  it('rise, start at 0, and stay below all of memory, whatever was measured', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 4, maxLength: 4 }), (pages) => {
        const measured = pages.map((count, i) => ({ seconds: seconds[i] as number, pages: count }));
        for (const { dirtied } of dirtyingThroughAll(measured, 4000)) {
          let before = dirtied(0);
          expect(before).toBe(0);
          for (let t = 0.01; t < 100; t *= 1.3) {
            const now = dirtied(t);
            expect(now).toBeGreaterThanOrEqual(before - 1e-6);
            expect(now).toBeLessThanOrEqual(4000);
            before = now;
          }
        }
      }),
    );
  });

  it('find the working set if the curve has flattened', () => {
    const curves = dirtyingThroughAll(
      [
        { seconds: 1, pages: 900 },
        { seconds: 5, pages: 1000 },
        { seconds: 20, pages: 1010 },
      ],
      100_000,
    );
    expect(curves.map(({ workingSet }) => workingSet)).toEqual([1010, 1010, 100_000]);
  });

  it('are one, of nothing, for a guest that writes nothing', () => {
    const curves = dirtyingThroughAll([{ seconds: 1, pages: 0 }], 100);
    expect(curves.map(({ dirtied }) => dirtied(50))).toEqual([0]);
    expect(dirtyingThroughAll([], 100)).toHaveLength(1);
  });
});
