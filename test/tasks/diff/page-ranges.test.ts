import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageRanges } from '../../../src/tasks/diff/page-ranges.ts';

const listed = (pages: readonly number[], most: number) => {
  const ranges = new PageRanges(most);
  for (const page of pages) ranges.add(page);
  return { list: ranges.list(), isExact: ranges.isExact };
};

describe('ranges of pages', () => {
  it('are exact if there are few', () => {
    expect(listed([1, 2, 3, 7, 9, 10], 3)).toEqual({
      list: [
        { first: 1, count: 3, changed: 3 },
        { first: 7, count: 1, changed: 1 },
        { first: 9, count: 2, changed: 2 },
      ],
      isExact: true,
    });
  });

  it('include the gaps between near ones if there are too many', () => {
    expect(listed([1, 3, 100, 102, 1000], 3)).toEqual({
      list: [
        { first: 1, count: 3, changed: 2 },
        { first: 100, count: 3, changed: 2 },
        { first: 1000, count: 1, changed: 1 },
      ],
      isExact: false,
    });
  });

  it('never exceed the limit, are ascending and separate, and have every page once, for any pages', () => {
    const pages = fc.uniqueArray(fc.nat(5000), { maxLength: 300 }).map((all) => all.sort((a, b) => a - b));
    fc.assert(
      fc.property(pages, fc.integer({ min: 1, max: 20 }), (all, most) => {
        const { list, isExact } = listed(all, most);
        expect(list.length).toBeLessThanOrEqual(most);
        expect(list.reduce((sum, { changed }) => sum + changed, 0)).toBe(all.length);
        list.forEach(({ first, count, changed }, i) => {
          const inside = all.filter((page) => page >= first && page < first + count);
          expect([inside.length, inside[0], inside.at(-1)]).toEqual([changed, first, first + count - 1]);
          if (isExact) expect(changed).toBe(count);
          const next = list[i + 1];
          if (next !== undefined) expect(next.first).toBeGreaterThan(first + count);
        });
      }),
    );
  });
});
