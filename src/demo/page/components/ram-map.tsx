/**
 * The map on its canvas. A wheel or drag moves it, with Ctrl or two fingers it zooms, a click looks at a page; all of it
 * works with keys, too.
 */
import { useComputed, useSignalEffect } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { formatBytes, formatHex, printable } from '../../../words/format.ts';
import type { BlockView, CellMap } from '../../protocol.ts';
import { bringIntoSight } from '../jump.ts';
import { readColours } from '../map-colours.ts';
import { clampRow, farthestRow, layOut, type MapLayout, nearestRow, pageAt, rowFor } from '../map-layout.ts';
import { paintMap } from '../map-paint.ts';
import { theme } from '../theme.ts';
import { CursorLine } from './cursor-line.tsx';
import { useMachine } from './machine-context.ts';
import { usePinch } from './pinch.ts';

/** Room around the cells, for the cursor's frame. */
const margin = 3;
const height = 330;

export function RamMap({ view }: { view: BlockView }) {
  const machine = useMachine();
  const { map } = machine;
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [wanted, setWanted] = useState(Number.POSITIVE_INFINITY);
  const [top, setTop] = useState(0);

  useLayoutEffect(() => {
    const element = canvas.current?.parentElement;
    if (element === null || element === undefined) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    setWidth(element.clientWidth);
    return () => observer.disconnect();
  }, []);

  const room = { width: Math.max(64, width - 2 * margin), height: height - 2 * margin };
  const farthest = farthestRow(view.pages, room);
  const pagesPerRow = Math.min(wanted, farthest);
  const layout = layOut(view.pages, room, pagesPerRow);
  const firstRow = clampRow(layout, top);

  /** Zooms so that the page stays where it is, as far as it can. */
  const zoom = (steps: number, page: number) => {
    const next = layOut(view.pages, room, Math.min(farthest, Math.max(nearestRow, pagesPerRow * 2 ** -steps)));
    const share = (Math.floor(page / pagesPerRow) - firstRow) / layout.visibleRows;
    setWanted(next.pagesPerRow);
    setTop(clampRow(next, Math.floor(page / next.pagesPerRow) - share * next.visibleRows));
  };
  /** Returns whether there was somewhere to go. Rows may be fractions, which add up. */
  const move = (rows: number) => {
    const from = Math.min(Math.max(0, top), layout.rows - layout.visibleRows);
    const to = Math.min(Math.max(0, from + rows), Math.max(0, layout.rows - layout.visibleRows));
    setTop(to);
    return to !== from;
  };
  const look = (page: number) => {
    machine.showRam(view.index, page * view.pageSize);
    bringIntoSight('bytes');
  };

  // The cursor is moved from elsewhere, too: then it is brought into sight.
  const cursor = map.cursor.value;
  // The row may be left by scrolling, but not when the cursor moves
  useEffect(() => setTop(rowFor(layout, cursor, firstRow)), [cursor]);

  usePainted(canvas, layout, firstRow);
  const pinch = usePinch({
    pan: (pixels) => move(-pixels / layout.cellHeight),
    zoom: (steps, point) => zoom(steps, pageAt(layout, firstRow, point.x - margin, point.y - margin) ?? cursor),
    tap: (point) => {
      const page = pageAt(layout, firstRow, point.x - margin, point.y - margin);
      if (page !== undefined) look(page);
    },
  });

  const onKeyDown = (event: KeyboardEvent) => {
    const pageRows = Math.max(1, layout.visibleRows - 1) * pagesPerRow;
    const steps: Record<string, number> = {
      ArrowLeft: -layout.pagesPerCell,
      ArrowRight: layout.pagesPerCell,
      ArrowUp: -pagesPerRow,
      ArrowDown: pagesPerRow,
      PageUp: -pageRows,
      PageDown: pageRows,
      Home: Number.NEGATIVE_INFINITY,
      End: Number.POSITIVE_INFINITY,
    };
    const step = steps[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (step !== undefined) map.cursor.value = Math.min(view.pages - 1, Math.max(0, cursor + step));
    else if (event.key === '+' || event.key === '=') zoom(1, cursor);
    else if (event.key === '-') zoom(-1, cursor);
    else if (event.key === '0') zoom(Number.NEGATIVE_INFINITY, cursor);
    else if (event.key === 'Enter' || event.key === ' ') look(cursor);
    else return;
    event.preventDefault();
  };

  const hasMore = layout.rows > layout.visibleRows;
  const shownHeight = Math.min(layout.rows, layout.visibleRows) * layout.cellHeight + 2 * margin;
  return (
    <>
      <div class="map-room">
        <Addresses layout={layout} firstRow={firstRow} view={view} />
        <div
          class="map-canvas"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: it is a widget of its own, worked with keys
          tabIndex={0}
          role="application"
          aria-roledescription="map of pages"
          aria-label={`RAM map of ${printable(view.idstr)}, ${view.pages} pages`}
          aria-describedby="map-keys"
          data-test="map"
          data-pages-per-row={pagesPerRow}
          data-first-row={firstRow}
          style={{ height: `${shownHeight}px` }}
          onKeyDown={onKeyDown}
          {...pinch}
        >
          <canvas ref={canvas} />
        </div>
        {hasMore ? (
          <Position layout={layout} firstRow={firstRow} onRow={(row) => setTop(clampRow(layout, row))} />
        ) : null}
      </div>
      <CursorLine />
      <div class="map-tools">
        <button type="button" onClick={() => zoom(1, cursor)} disabled={pagesPerRow <= nearestRow}>
          Zoom in
        </button>
        <button type="button" onClick={() => zoom(-1, cursor)} disabled={pagesPerRow >= farthest}>
          Zoom out
        </button>
        <button type="button" onClick={() => zoom(Number.NEGATIVE_INFINITY, cursor)} disabled={pagesPerRow >= farthest}>
          All
        </button>
        <span class="note">
          a row is {formatBytes(pagesPerRow * view.pageSize)}
          {layout.pagesPerCell > 1 ? `, a cell ${layout.pagesPerCell} pages` : ', a cell one page'}
        </span>
      </div>
      <p class="note fingers">Tap: look at the page. Two fingers: move and zoom.</p>
      <p id="map-keys" class="note keys">
        Click or <kbd>Enter</kbd>: look at the page. Arrows, <kbd>Page Up</kbd>, <kbd>Page Down</kbd>, <kbd>Home</kbd>,{' '}
        <kbd>End</kbd>: move. <kbd>+</kbd>, <kbd>-</kbd>, <kbd>0</kbd> or <kbd>Ctrl</kbd> and the wheel: zoom.
      </p>
    </>
  );
}

/** Addresses of rows, as many as have room. */
function Addresses({ layout, firstRow, view }: { layout: MapLayout; firstRow: number; view: BlockView }) {
  const every = Math.max(1, Math.ceil(15 / layout.cellHeight));
  const rows = Math.min(layout.visibleRows, layout.rows - firstRow);
  const labels = [];
  for (let row = 0; row < rows; row += every) {
    labels.push(
      <span key={row} style={{ top: `${margin + row * layout.cellHeight + Math.min(layout.cellHeight, 15) / 2}px` }}>
        {formatHex((firstRow + row) * layout.pagesPerRow * view.pageSize)}
      </span>,
    );
  }
  return (
    <div class="map-addresses" aria-hidden="true">
      {labels}
    </div>
  );
}

/** Where in the block the rows in sight are; it can be dragged. */
function Position(props: { layout: MapLayout; firstRow: number; onRow(row: number): void }) {
  const { layout, firstRow, onRow } = props;
  const share = layout.visibleRows / layout.rows;
  const onPointer = (event: PointerEvent) => {
    const element = event.currentTarget as HTMLElement;
    if (event.type === 'pointerdown') element.setPointerCapture(event.pointerId);
    if (event.buttons === 0) return;
    const box = element.getBoundingClientRect();
    onRow(((event.clientY - box.top) / box.height - share / 2) * layout.rows);
  };
  return (
    <div class="map-position" aria-hidden="true" onPointerDown={onPointer} onPointerMove={onPointer}>
      <i style={{ top: `${(100 * firstRow) / layout.rows}%`, height: `${Math.max(2, 100 * share)}%` }} />
    </div>
  );
}

/** Asks for the cells in sight and paints them, whenever there is something else to see. */
function usePainted(canvas: { current: HTMLCanvasElement | null }, layout: MapLayout, firstRow: number): void {
  const { map } = useMachine();
  const [cells, setCells] = useState<CellMap>();
  const cursor = useComputed(() => map.cursor.value);
  const asked = useRef(0);
  const what = [map.block.value, map.layer.value, map.base.value?.id, map.revision.value] as const;
  const { pagesPerRow, pagesPerCell, columns, visibleRows } = layout;

  // What the map is about is in the model
  useEffect(() => {
    const number = ++asked.current;
    const count = visibleRows * columns;
    void map.cells(firstRow * pagesPerRow, pagesPerCell, count).then(
      (found) => {
        if (number === asked.current) setCells(found);
      },
      () => {},
    );
  }, [map, pagesPerRow, pagesPerCell, columns, visibleRows, firstRow, ...what]);

  const paint = () => {
    const element = canvas.current;
    const context = element?.getContext('2d');
    if (element === null || context === null || context === undefined || cells === undefined) return;
    const scale = devicePixelRatio;
    const [wide, high] = [element.clientWidth, element.clientHeight];
    element.width = Math.round(wide * scale);
    element.height = Math.round(high * scale);
    context.setTransform(scale, 0, 0, scale, margin * scale, margin * scale);
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
    cursor.value;
    theme.value;
    paint();
  });
}
