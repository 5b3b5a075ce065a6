import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  cellOf,
  clampRow,
  farthestRow,
  layOut,
  nearestRow,
  pageAt,
  rowFor,
} from '../../../src/demo/page/map-layout.ts';

const space = { width: 560, height: 324 };

const anyMap = fc.record({
  pages: fc.integer({ min: 1, max: 2 ** 31 }),
  width: fc.integer({ min: 64, max: 3000 }),
  zoom: fc.integer({ min: 0, max: 40 }),
  share: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
});

describe('the layout of the map', () => {
  it('shows a whole block at the smallest scale, whatever its size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 34 }), (pages) => {
        const layout = layOut(pages, space, farthestRow(pages, space));
        expect(layout.rows).toBeLessThanOrEqual(layout.visibleRows);
        expect(layout.columns * layout.pagesPerCell).toBe(layout.pagesPerRow);
      }),
    );
  });

  it('finds a page at the position of its cell', () => {
    fc.assert(
      fc.property(anyMap, ({ pages, width, zoom, share }) => {
        const within = { width, height: 324 };
        const pagesPerRow = Math.min(nearestRow * 2 ** zoom, farthestRow(pages, within));
        const layout = layOut(pages, within, pagesPerRow);
        const page = Math.floor(pages * share);
        const first = rowFor(layout, page, 0);
        const { x, y } = cellOf(layout, first, page);
        const found = pageAt(layout, first, x + layout.cellWidth / 2, y + layout.cellHeight / 2);
        expect(found).toBe(page - (page % layout.pagesPerCell));
        expect(y).toBeGreaterThanOrEqual(0);
        expect(y).toBeLessThan(layout.visibleRows * layout.cellHeight);
      }),
    );
  });

  it('starts rows at round addresses: a row has a power of two of pages', () => {
    for (const pages of [1, 16, 512, 300_000]) expect(Math.log2(farthestRow(pages, space)) % 1).toBe(0);
  });

  it('never scrolls past the last row', () => {
    const layout = layOut(4096, space, nearestRow);
    expect(clampRow(layout, 1e9)).toBe(layout.rows - layout.visibleRows);
    expect(clampRow(layout, -3)).toBe(0);
  });

  it('finds nothing at points outside the cells', () => {
    const layout = layOut(12, space, nearestRow);
    expect(pageAt(layout, 0, -1, 5)).toBeUndefined();
    expect(pageAt(layout, 0, space.width + 1, 5)).toBeUndefined();
    expect(pageAt(layout, 0, space.width - 1, layout.cellHeight + 1)).toBeUndefined();
  });
});
