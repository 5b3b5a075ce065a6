/** Paints the map onto a canvas: the cells, the cursor, and the page numbers if they fit. */

import type { CellMap, Layer } from '../protocol.ts';
import { drawingOrder, layerClasses, type PageClass, stepOf, unknownValue } from './map-colours.ts';
import { cellOf, type MapLayout } from './map-layout.ts';

interface MapPicture {
  layout: MapLayout;
  firstRow: number;
  layer: Layer;
  /** The cells from `firstRow` on. */
  cells: CellMap;
  /** The last pass. */
  most: number;
  cursor: number | undefined;
  colour(variable: string): string;
}

type Context = CanvasRenderingContext2D;

interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

export function paintMap(context: Context, picture: MapPicture): void {
  const { layout, firstRow } = picture;
  context.clearRect(0, 0, layout.columns * layout.cellWidth + 8, layout.visibleRows * layout.cellHeight + 8);
  const hasNumbers = layout.pagesPerCell === 1 && layout.cellWidth >= 44;
  const cells = layout.visibleRows * layout.columns;
  for (let cell = 0; cell < cells; cell++) {
    const page = firstRow * layout.pagesPerRow + cell * layout.pagesPerCell;
    if (page >= layout.pages) break;
    const place = rectangleOf(context, picture, page);
    const isFilled = paintCell(context, picture, cell, place);
    if (hasNumbers) paintNumber(context, picture, page, place, isFilled);
  }
  if (picture.cursor !== undefined) paintCursor(context, picture, picture.cursor);
}

/** The place of a page's cell. Gaps separate pages. Cells of several pages touch, so that only the pages make a pattern. */
function rectangleOf(context: Context, { layout, firstRow }: MapPicture, page: number): Rectangle {
  const { cellWidth, cellHeight } = layout;
  const { x, y } = cellOf(layout, firstRow, page);
  if (layout.pagesPerCell === 1) {
    const gap = cellWidth >= 12 ? 1 : cellWidth >= 6 ? 0.5 : 0;
    return { x, y, width: cellWidth - gap, height: cellHeight - gap };
  }
  // Edges between two pixels of the screen would look like lines.
  const scale = context.getTransform().a;
  const snap = (at: number) => Math.round(at * scale) / scale;
  const [left, top] = [snap(x), snap(y)];
  return { x: left, y: top, width: snap(x + cellWidth) - left, height: snap(y + cellHeight) - top };
}

/** Text in `--on-map` is readable from this step of the scale on. On lighter steps, `--text` is. */
const strongStep = 4;

/** Returns whether the cell is so dark that text on it needs the colour `--on-map`. */
function paintCell(context: Context, picture: MapPicture, cell: number, place: Rectangle): boolean {
  const { layer, cells, most, colour } = picture;
  if (cells.kind === 'values') {
    const { x, y, width, height } = place;
    const value = cells.values[cell] ?? unknownValue;
    const step = value === unknownValue ? undefined : stepOf(layer, value, most);
    context.fillStyle = colour(step === undefined ? '--map-unknown' : `--scale-${step}`);
    context.fillRect(x, y, width, height);
    return step !== undefined && step >= strongStep;
  }
  const counts = cells.counts.subarray(cell * cells.classes, (cell + 1) * cells.classes);
  const kinds = kindsIn(counts, layer);
  const [first, ...others] = kinds;
  if (first === undefined) return false;
  if (others.length === 0) paintClass(context, first.pageClass, colour(first.pageClass.colour), place);
  else paintBlend(context, kinds, colour, place);
  return !first.pageClass.isHollow && !['zero', 'same', 'unknown'].includes(first.pageClass.name);
}

/** The pages of one class in a cell. */
interface Kind {
  pageClass: PageClass;
  /** Part of the colour of the cell. */
  weight: number;
}

/** The smallest weight in a cell, so that even a single page is visible. */
const leastWeight = 0.15;

/** The classes of the pages in a cell, the most important first. */
function kindsIn(counts: Uint32Array, layer: Layer): Kind[] {
  const pages = counts.reduce((sum, count) => sum + count, 0);
  const kinds: Kind[] = [];
  for (const number of drawingOrder[layer] ?? []) {
    const [count, pageClass] = [counts[number] ?? 0, layerClasses[layer]?.[number]];
    if (count > 0 && pageClass !== undefined) kinds.push({ pageClass, weight: Math.max(leastWeight, count / pages) });
  }
  return kinds;
}

/** Paints the weighted mean of the colours. Parts of a cell in different colours would look like places of pages. */
function paintBlend(
  context: Context,
  kinds: readonly Kind[],
  colour: MapPicture['colour'],
  { x, y, width, height }: Rectangle,
): void {
  let sum = 0;
  for (const { pageClass, weight } of kinds) {
    sum += weight;
    context.globalAlpha = weight / sum;
    context.fillStyle = colour(pageClass.isHollow ? '--panel' : pageClass.colour);
    context.fillRect(x, y, width, height);
  }
  context.globalAlpha = 1;
}

function paintClass(context: Context, { isHollow }: PageClass, colour: string, place: Rectangle): void {
  const { x, y, width, height } = place;
  context.fillStyle = colour;
  if (!isHollow) {
    context.fillRect(x, y, width, height);
    return;
  }
  context.fillRect(x, y, width, 1);
  context.fillRect(x, y + height - 1, width, 1);
  context.fillRect(x, y, 1, height);
  context.fillRect(x + width - 1, y, 1, height);
}

function paintNumber(
  context: Context,
  { colour }: MapPicture,
  page: number,
  place: Rectangle,
  isFilled: boolean,
): void {
  context.font = `11px ${colour('--mono')}`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.fillStyle = colour(isFilled ? '--on-map' : '--text');
  context.fillText(String(page), place.x + place.width / 2, place.y + place.height / 2 + 0.5);
}

/** Draws a light and a dark frame, so that the cursor is visible on any colour. */
function paintCursor(context: Context, picture: MapPicture, page: number): void {
  const { x, y, width, height } = rectangleOf(context, picture, page);
  const { layout, colour } = picture;
  if (y < 0 || y >= layout.visibleRows * layout.cellHeight) return;
  context.lineWidth = 2;
  context.strokeStyle = colour('--panel');
  context.strokeRect(x + 2, y + 2, width - 4, height - 4);
  context.strokeStyle = colour('--text');
  context.strokeRect(x, y, width, height);
}
