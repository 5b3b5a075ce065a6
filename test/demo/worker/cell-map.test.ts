import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countClasses, latestValues, meanValues } from '../../../src/demo/worker/cell-map.ts';
import { PageStates } from '../../../src/vm/page-states.ts';

const pages = 3 * 4096 + 5;
const classes = Uint8Array.from({ length: 256 }, (_, value) => Math.min(value, 3));

/** States of pages set one by one, and a range filled, with the same states in a plain array. */
const filled = fc
  .tuple(
    fc.array(fc.tuple(fc.nat(pages - 1), fc.integer({ min: 0, max: 255 }))),
    fc.nat(pages),
    fc.nat(pages),
    fc.nat(255),
  )
  .map(([sets, a, b, value]) => {
    const states = new PageStates();
    const plain = new Uint8Array(pages);
    states.fill(Math.min(a, b), Math.max(a, b), value);
    plain.fill(value, Math.min(a, b), Math.max(a, b));
    for (const [page, state] of sets) {
      states.set(page, state);
      plain[page] = state;
    }
    return { states, plain };
  });
const ranges = fc.record({
  first: fc.nat(pages + 10),
  pagesPerCell: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 9000 })),
  cells: fc.nat(300),
  pages: fc.constant(pages),
});

/** Stands for a cell without a value. */
const noValue = 255;

describe('the cells of a map', () => {
  it('equal those of a loop over all pages', () => {
    fc.assert(
      fc.property(filled, ranges, ({ states, plain }, range) => {
        const cells = Array.from({ length: range.cells }, (_, cell) => {
          const from = range.first + cell * range.pagesPerCell;
          return [...plain.subarray(from, from + range.pagesPerCell)];
        });
        const { counts } = countClasses(states, range, classes, 4);
        expect([...counts]).toEqual(
          cells.flatMap((cell) => [0, 1, 2, 3].map((each) => cell.filter((value) => classes[value] === each).length)),
        );
        const latest = (cell: number[]) => Math.max(0, ...cell) || noValue;
        expect([...latestValues(states, range).values]).toEqual(cells.map(latest));
        const mean = (cell: number[]) => {
          const known = cell.filter((value) => value > 0);
          return known.length === 0
            ? noValue
            : Math.round(known.reduce((sum, value) => sum + value - 1, 0) / known.length);
        };
        expect([...meanValues(states, range).values]).toEqual(cells.map(mean));
      }),
      { numRuns: 60 },
    );
  });

  it('are limited in number, and have whole pages', () => {
    const range = { first: 0, pagesPerCell: 1, cells: 65_537, pages };
    expect(() => latestValues(new PageStates(), range)).toThrow(RangeError);
    expect(() => latestValues(new PageStates(), { ...range, cells: 1, pagesPerCell: 0.5 })).toThrow(RangeError);
  });
});
