/**
 * The RAM map. The wheel or a drag moves it, Ctrl and the wheel or two fingers zoom it, and a click shows the bytes of a page. All
 * of that works with keys, too.
 */
import { useRef } from 'preact/hooks';
import { printable } from '../../../words/format.ts';
import type { BlockView } from '../../protocol.ts';
import { bringIntoSight } from '../jump.ts';
import { hasModifier, stepOfKey } from '../keys.ts';
import { pageAt } from '../map-layout.ts';
import { CursorLine } from './cursor-line.tsx';
import { useElementWidth } from './element-width.ts';
import { useMachine } from './machine-context.ts';
import { mapMargin, usePaintedMap } from './map-canvas.ts';
import { MapScrollBar, RowAddresses } from './map-edges.tsx';
import { MapHelp, MapTools } from './map-tools.tsx';
import { type MapWindow, useMapWindow } from './map-window.ts';
import { usePinch } from './pinch.ts';

/** Height of the map and its smallest width, in CSS pixels. */
const height = 330;
const leastWidth = 64;

export function RamMap({ view }: { view: BlockView }) {
  const machine = useMachine();
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useElementWidth(box);
  const space = { width: Math.max(leastWidth, width - 2 * mapMargin), height: height - 2 * mapMargin };
  const cursor = machine.map.cursor.value;
  const window = useMapWindow(view, space, cursor);
  const { layout, firstRow } = window;
  usePaintedMap(canvas, layout, firstRow);

  const showBytes = (page: number) => {
    machine.showRam(view.index, page * view.pageSize);
    bringIntoSight('bytes');
  };
  const pointer = useMapPointer(window, cursor, showBytes);
  const onKeyDown = useMapKeys(window, view, showBytes);
  const shownHeight = Math.min(layout.rows, layout.visibleRows) * layout.cellHeight + 2 * mapMargin;
  return (
    <>
      <div class="map-frame">
        <RowAddresses layout={layout} firstRow={firstRow} pageSize={view.pageSize} />
        <div
          ref={box}
          class="map-canvas"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: it is a widget that the keyboard controls
          tabIndex={0}
          role="application"
          aria-roledescription="map of pages"
          aria-label={`RAM map of ${printable(view.idstr)}, ${view.pages} pages`}
          aria-describedby="map-keys"
          data-test="map"
          data-pages-per-row={layout.pagesPerRow}
          data-first-row={firstRow}
          style={{ height: `${shownHeight}px` }}
          onKeyDown={onKeyDown}
          {...pointer}
        >
          <canvas ref={canvas} />
        </div>
        {layout.rows > layout.visibleRows ? (
          <MapScrollBar layout={layout} firstRow={firstRow} onRow={window.goToRow} />
        ) : null}
      </div>
      <CursorLine />
      <MapTools window={window} pageSize={view.pageSize} cursor={cursor} />
      <MapHelp />
    </>
  );
}

/** Handlers for the mouse, the wheel and fingers. */
function useMapPointer({ layout, firstRow, move, zoom }: MapWindow, cursor: number, showBytes: (page: number) => void) {
  const pageUnder = ({ x, y }: { x: number; y: number }) => pageAt(layout, firstRow, x - mapMargin, y - mapMargin);
  return usePinch({
    pan: (pixels) => move(-pixels / layout.cellHeight),
    zoom: (steps, point) => zoom(steps, pageUnder(point) ?? cursor),
    tap: (point) => {
      const page = pageUnder(point);
      if (page !== undefined) showBytes(page);
    },
  });
}

/** The handler for keys: they move the cursor, zoom, and show the bytes of a page. */
function useMapKeys({ layout, zoom }: MapWindow, { pages }: BlockView, showBytes: (page: number) => void) {
  const { map } = useMachine();
  const { pagesPerCell, pagesPerRow, visibleRows } = layout;
  const steps = { column: pagesPerCell, line: pagesPerRow, page: Math.max(1, visibleRows - 1) * pagesPerRow };
  return (event: KeyboardEvent) => {
    if (hasModifier(event)) return;
    const cursor = map.cursor.value;
    const step = stepOfKey(event.key, steps);
    if (step !== undefined) map.cursor.value = Math.min(pages - 1, Math.max(0, cursor + step));
    else if (event.key === '+' || event.key === '=') zoom(1, cursor);
    else if (event.key === '-') zoom(-1, cursor);
    else if (event.key === '0') zoom(Number.NEGATIVE_INFINITY, cursor);
    else if (event.key === 'Enter' || event.key === ' ') showBytes(cursor);
    else return;
    event.preventDefault();
  };
}
