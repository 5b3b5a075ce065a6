/**
 * Where pages lie on the map: rows of a power of two of pages, so that the address of a row is a round one. Where a row has
 * more pages than there is room for cells, a cell stands for several.
 */

/** The room there is, in CSS pixels. */
export interface MapRoom {
  width: number;
  height: number;
}

export interface MapLayout {
  pages: number;
  /** A power of two, and the measure of zoom: the fewer, the nearer. */
  pagesPerRow: number;
  columns: number;
  pagesPerCell: number;
  cellWidth: number;
  cellHeight: number;
  rows: number;
  /** Rows that fit into the room, at least one. */
  visibleRows: number;
}

const narrowestCell = 7;
const [lowestCell, highestCell] = [7, 32];
/** Pages of a row at the nearest: then a cell has room for its page's number. */
export const nearestRow = 8;

export function layOut(pages: number, room: MapRoom, pagesPerRow: number): MapLayout {
  const widest = 2 ** Math.floor(Math.log2(Math.max(1, room.width / narrowestCell)));
  const columns = Math.min(pagesPerRow, widest);
  const cellWidth = room.width / columns;
  const cellHeight = Math.round(Math.min(highestCell, Math.max(lowestCell, cellWidth)));
  const rows = Math.max(1, Math.ceil(pages / pagesPerRow));
  const visibleRows = Math.max(1, Math.floor(room.height / cellHeight));
  return { pages, pagesPerRow, columns, pagesPerCell: pagesPerRow / columns, cellWidth, cellHeight, rows, visibleRows };
}

/** The row length at which the whole block is in sight: the farthest there is. */
export function farthestRow(pages: number, room: MapRoom): number {
  let pagesPerRow = nearestRow;
  while (layOut(pages, room, pagesPerRow).rows > layOut(pages, room, pagesPerRow).visibleRows) pagesPerRow *= 2;
  return pagesPerRow;
}

/** The first row to show, so that it is one and there is no empty room below the last that could be filled. */
export function clampRow(layout: MapLayout, row: number): number {
  return Math.min(Math.max(0, Math.round(row)), Math.max(0, layout.rows - layout.visibleRows));
}

/** The first row to show for a page to be in sight, the nearest to `first`. */
export function rowFor(layout: MapLayout, page: number, first: number): number {
  const row = Math.floor(page / layout.pagesPerRow);
  if (row < first) return clampRow(layout, row);
  if (row >= first + layout.visibleRows) return clampRow(layout, row - layout.visibleRows + 1);
  return clampRow(layout, first);
}

/** The first page of the cell under a point; undefined beyond the last page. */
export function pageAt(layout: MapLayout, firstRow: number, x: number, y: number): number | undefined {
  const column = Math.floor(x / layout.cellWidth);
  if (column < 0 || column >= layout.columns || y < 0) return undefined;
  const row = firstRow + Math.floor(y / layout.cellHeight);
  const page = row * layout.pagesPerRow + column * layout.pagesPerCell;
  return page < layout.pages ? page : undefined;
}

/** Where a page's cell is. */
export function cellOf(layout: MapLayout, firstRow: number, page: number): { x: number; y: number } {
  const row = Math.floor(page / layout.pagesPerRow) - firstRow;
  const column = Math.floor((page % layout.pagesPerRow) / layout.pagesPerCell);
  return { x: column * layout.cellWidth, y: row * layout.cellHeight };
}
