/** The part of a block that the RAM map shows: its zoom, and the rows that are scrolled into sight. */
import { useEffect, useState } from 'preact/hooks';
import type { BlockView } from '../../protocol.ts';
import { clampRow, farthestRow, layOut, type MapLayout, type MapSpace, nearestRow, rowFor } from '../map-layout.ts';

export interface MapWindow {
  layout: MapLayout;
  /** The first visible row. */
  firstRow: number;
  canZoomIn: boolean;
  canZoomOut: boolean;
  /** Zooms by powers of two, and keeps `page` where it is as far as possible. `-Infinity` shows the whole block. */
  zoom(steps: number, page: number): void;
  /** Moves by rows, and fractions of rows add up. Returns whether anything moved. */
  move(rows: number): boolean;
  /** Scrolls to a row. */
  goToRow(row: number): void;
}

/** A change of `cursor` scrolls its row into sight. */
export function useMapWindow({ pages }: BlockView, space: MapSpace, cursor: number): MapWindow {
  const [wanted, setWanted] = useState(Number.POSITIVE_INFINITY);
  const [top, setTop] = useState(0);
  const farthest = farthestRow(pages, space);
  const pagesPerRow = Math.min(wanted, farthest);
  const layout = layOut(pages, space, pagesPerRow);
  const firstRow = clampRow(layout, top);

  // Only a new cursor moves the map: otherwise the user could not scroll away from it.
  useEffect(() => setTop(rowFor(layout, cursor, firstRow)), [cursor]);

  return {
    layout,
    firstRow,
    canZoomIn: pagesPerRow > nearestRow,
    canZoomOut: pagesPerRow < farthest,
    zoom: (steps, page) => {
      const next = layOut(pages, space, Math.min(farthest, Math.max(nearestRow, pagesPerRow * 2 ** -steps)));
      const share = (Math.floor(page / pagesPerRow) - firstRow) / layout.visibleRows;
      setWanted(next.pagesPerRow);
      setTop(clampRow(next, Math.floor(page / next.pagesPerRow) - share * next.visibleRows));
    },
    move: (rows) => {
      const from = Math.min(Math.max(0, top), layout.rows - layout.visibleRows);
      const to = Math.min(Math.max(0, from + rows), Math.max(0, layout.rows - layout.visibleRows));
      setTop(to);
      return to !== from;
    },
    goToRow: (row) => setTop(clampRow(layout, row)),
  };
}
