/**
 * Computes where pages lie on the map. The pages per row are a power of two, so that rows begin at round addresses. If a row has
 * more pages than there is space for cells, each cell stands for several pages.
 */

/** The space for cells, in CSS pixels. */
export interface MapSpace {
  width: number;
  height: number;
}

export interface MapLayout {
  pages: number;
  /** The zoom: a power of two. Fewer pages per row are nearer. */
  pagesPerRow: number;
  columns: number;
  pagesPerCell: number;
  cellWidth: number;
  cellHeight: number;
  rows: number;
  /** Rows that fit into the space, at least one. */
  visibleRows: number;
}

const narrowestCell = 7;
const [lowestCell, highestCell] = [7, 32];
/** Pages per row at the nearest zoom. Each cell is then wide enough for the number of its page. */
export const nearestRow = 8;

export function layOut(pages: number, space: MapSpace, pagesPerRow: number): MapLayout {
  const widest = 2 ** Math.floor(Math.log2(Math.max(1, space.width / narrowestCell)));
  const columns = Math.min(pagesPerRow, widest);
  const cellWidth = space.width / columns;
  const cellHeight = Math.round(Math.min(highestCell, Math.max(lowestCell, cellWidth)));
  const rows = Math.max(1, Math.ceil(pages / pagesPerRow));
  const visibleRows = Math.max(1, Math.floor(space.height / cellHeight));
  return { pages, pagesPerRow, columns, pagesPerCell: pagesPerRow / columns, cellWidth, cellHeight, rows, visibleRows };
}

/** Pages per row at the farthest zoom, which shows the whole block. */
export function farthestRow(pages: number, space: MapSpace): number {
  let pagesPerRow = nearestRow;
  while (layOut(pages, space, pagesPerRow).rows > layOut(pages, space, pagesPerRow).visibleRows) pagesPerRow *= 2;
  return pagesPerRow;
}

/** The nearest row that can be the first visible one. The last row of the block never leaves empty space below it. */
export function clampRow(layout: MapLayout, row: number): number {
  return Math.min(Math.max(0, Math.round(row)), Math.max(0, layout.rows - layout.visibleRows));
}

/** The first visible row after the map scrolled as little as possible from `first` to show `page`. */
export function rowFor(layout: MapLayout, page: number, first: number): number {
  const row = Math.floor(page / layout.pagesPerRow);
  if (row < first) return clampRow(layout, row);
  if (row >= first + layout.visibleRows) return clampRow(layout, row - layout.visibleRows + 1);
  return clampRow(layout, first);
}

/** The first page of the cell at a point. Undefined beyond the last page. */
export function pageAt(layout: MapLayout, firstRow: number, x: number, y: number): number | undefined {
  const column = Math.floor(x / layout.cellWidth);
  if (column < 0 || column >= layout.columns || y < 0) return undefined;
  const row = firstRow + Math.floor(y / layout.cellHeight);
  const page = row * layout.pagesPerRow + column * layout.pagesPerCell;
  return page < layout.pages ? page : undefined;
}

/** The top left corner of the cell of a page. */
export function cellOf(layout: MapLayout, firstRow: number, page: number): { x: number; y: number } {
  const row = Math.floor(page / layout.pagesPerRow) - firstRow;
  const column = Math.floor((page % layout.pagesPerRow) / layout.pagesPerCell);
  return { x: column * layout.cellWidth, y: row * layout.cellHeight };
}
