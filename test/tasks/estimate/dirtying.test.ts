import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Dirtying, dirtyingAt, dirtyingThrough, findWorkingSet } from '../../../src/tasks/estimate/dirtying.ts';

const named = (curves: Dirtying[]) => Object.fromEntries(curves.map((curve) => [curve.name, curve]));

describe('the curves through the data of two saves', () => {
  const { least, likely, most } = named(dirtyingThrough(1000, 10, 100_000)) as Record<string, Dirtying>;

  it('all go through the point', () => {
    for (const curve of [least, likely, most]) expect(curve!.dirtied(10)).toBeCloseTo(1000, 6);
  });

  it('start at zero', () => {
    for (const curve of [least, likely, most]) expect(curve!.dirtied(0)).toBe(0);
  });

  it('differ as much as possible before and after', () => {
    expect(least!.dirtied(1)).toBeCloseTo(100);
    expect(most!.dirtied(1)).toBe(1000);
    expect(least!.dirtied(100)).toBe(1000);
    expect(most!.dirtied(100)).toBe(10_000);
    expect(most!.dirtied(1e6)).toBe(100_000);
    expect(likely!.workingSet).toBeCloseTo(1582, 0);
  });

  it('enclose every guest that writes at random to some pages', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 10, max: 50_000 }),
        fc.double({ min: 0.001, max: 50, noNaN: true }),
        fc.double({ min: 0.1, max: 100, noNaN: true }),
        fc.double({ min: 0.01, max: 1000, noNaN: true }),
        (set, rate, seconds, at) => {
          const guest = dirtyingAt(set * rate, set, 100_000);
          const curves = named(dirtyingThrough(guest.dirtied(seconds), seconds, 100_000));
          expect(guest.dirtied(at)).toBeGreaterThanOrEqual(curves.least!.dirtied(at) * (1 - 1e-9));
          expect(guest.dirtied(at)).toBeLessThanOrEqual(curves.most!.dirtied(at) * (1 + 1e-9));
        },
      ),
    );
  });

  it('stay finite for a guest that wrote to all of its memory', () => {
    for (const curve of dirtyingThrough(500, 1, 500)) expect(curve.dirtied(2)).toBeLessThanOrEqual(500);
    for (const curve of dirtyingThrough(0, 1, 500)) expect(curve.dirtied(2)).toBe(0);
  });
});

describe('a given dirty rate', () => {
  it('continues to new pages if no working set is known', () => {
    const guest = dirtyingAt(100, undefined, 450);
    expect([1, 4, 5].map((t) => guest.dirtied(t))).toEqual([100, 400, 450]);
  });

  it('levels off at the working set', () => {
    const guest = dirtyingAt(100, 200, 450);
    expect(guest.dirtied(0.001)).toBeCloseTo(0.1, 3);
    expect(guest.dirtied(100)).toBeCloseTo(200);
  });

  it('determines the working set, together with two saves', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 10, max: 1e6 }),
        fc.double({ min: 0.05, max: 20, noNaN: true }),
        fc.double({ min: 0.1, max: 20, noNaN: true }),
        (set, rate, seconds) => {
          const pages = dirtyingAt(set * rate, set, 1e7).dirtied(seconds);
          // If all pages were written many times, any larger set would fit.
          fc.pre(rate * seconds > 0.05);
          expect(findWorkingSet(set * rate, pages, seconds)! / set).toBeCloseTo(1, 2);
        },
      ),
    );
  });

  it('has no working set if more pages changed than it explains', () => {
    expect(findWorkingSet(10, 200, 10)).toBeUndefined();
    expect(findWorkingSet(10, 0, 10)).toBe(0);
  });
});
