/** Keeps the canvas of the RAM map up to date: asks the worker for the visible cells and paints them. */
import { useComputed, useSignalEffect } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { CellMap } from '../../protocol.ts';
import { readColours } from '../map-colours.ts';
import type { MapLayout } from '../map-layout.ts';
import { paintMap } from '../map-paint.ts';
import { theme } from '../theme.ts';
import { useMachine } from './machine-context.ts';

type Canvas = { current: HTMLCanvasElement | null };

/** Space around the cells for the frame of the cursor, in CSS pixels. */
export const mapMargin = 3;

/** Paints the rows from `firstRow` on. */
export function usePaintedMap(canvas: Canvas, layout: MapLayout, firstRow: number): void {
  const { map } = useMachine();
  const cells = useCells(layout, firstRow);
  const cursor = useComputed(() => map.cursor.value);
  const paint = () => {
    const element = canvas.current;
    const context = element?.getContext('2d');
    if (element === null || context === null || context === undefined || cells === undefined) return;
    fitToScreen(element, context);
    paintMap(context, {
      layout,
      firstRow,
      layer: map.layer.peek(),
      cells,
      most: map.file.inspection.ram.passes ?? 1,
      cursor: cursor.peek(),
      colour: readColours(element),
    });
  };
  useLayoutEffect(paint);
  useSignalEffect(() => {
    // Reading the signals runs this again when they change.
    cursor.value;
    theme.value;
    paint();
  });
}

/** The visible cells. Undefined until the first answer. */
function useCells({ pagesPerRow, pagesPerCell, columns, visibleRows }: MapLayout, firstRow: number) {
  const { map } = useMachine();
  const [cells, setCells] = useState<CellMap>();
  const asked = useRef(0);
  const subject = [map.block.value, map.layer.value, map.base.value?.id, map.revision.value] as const;
  useEffect(() => {
    const number = ++asked.current;
    void map.cells(firstRow * pagesPerRow, pagesPerCell, visibleRows * columns).then(
      (found) => {
        // Answers to older questions are stale.
        if (number === asked.current) setCells(found);
      },
      () => {},
    );
  }, [map, pagesPerRow, pagesPerCell, columns, visibleRows, firstRow, ...subject]);
  return cells;
}

/** Gives the canvas one pixel per pixel of the screen. Then the context takes CSS pixels, within the margin. */
export function fitToScreen(element: HTMLCanvasElement, context: CanvasRenderingContext2D): void {
  const scale = devicePixelRatio;
  const [width, height] = [element.clientWidth, element.clientHeight];
  element.width = Math.round(width * scale);
  element.height = Math.round(height * scale);
  const margin = Math.round(mapMargin * scale);
  context.setTransform(scale, 0, 0, scale, margin, margin);
}
