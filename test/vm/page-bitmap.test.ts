import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageBitmap } from '../../src/vm/page-bitmap.ts';

const bitmapOf = (pages: number) =>
  new PageBitmap({ index: 0, idstr: 'ram', usedLength: pages * 4096, pageSize: 4096 });

describe('a page bitmap', () => {
  it('contains the pages that were set', () => {
    const step = fc.record({ page: fc.nat(99), isSet: fc.boolean() });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.array(step), fc.boolean(), (pages, steps, isFull) => {
        const bitmap = bitmapOf(pages);
        const expected = new Set<number>();
        if (isFull) {
          bitmap.fill();
          for (let page = 0; page < pages; page++) expected.add(page);
        }
        for (const { page, isSet } of steps.filter((each) => each.page < pages)) {
          if (isSet) bitmap.set(page);
          else bitmap.clear(page);
          if (isSet) expected.add(page);
          else expected.delete(page);
        }
        const clear: number[] = [];
        for (let page = bitmap.nextClear(0); page < pages; page = bitmap.nextClear(page + 1)) clear.push(page);
        expect(clear).toEqual(Array.from({ length: pages }, (_, i) => i).filter((page) => !expected.has(page)));
        const found: number[] = [];
        for (let page = bitmap.nextSet(0); page < pages; page = bitmap.nextSet(page + 1)) found.push(page);
        expect(found).toEqual([...expected].sort((a, b) => a - b));
        expect(found.every((page) => bitmap.has(page))).toBe(true);
        expect(bitmap.count).toBe(expected.size);
      }),
    );
  });

  it('refuses pages that do not exist', () => {
    for (const page of [-1, 33, Number.NaN, 1.5]) expect(() => bitmapOf(33).set(page)).toThrow(RangeError);
  });
});
