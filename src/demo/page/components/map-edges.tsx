/** What stands beside the RAM map: the addresses of its rows on the left, and a scroll bar on the right. */
import { formatHex } from '../../../words/format.ts';
import type { MapLayout } from '../map-layout.ts';
import { mapMargin } from './map-canvas.ts';

interface Rows {
  layout: MapLayout;
  /** The first visible row. */
  firstRow: number;
}

/** Height of an address, in CSS pixels. */
const addressHeight = 15;

/** Addresses of the visible rows. If rows are low, only every second, third, … row has one. */
export function RowAddresses({ layout, firstRow, pageSize }: Rows & { pageSize: number }) {
  const { cellHeight, pagesPerRow } = layout;
  const every = Math.max(1, Math.ceil(addressHeight / cellHeight));
  const rows = Math.min(layout.visibleRows, layout.rows - firstRow);
  const labels = [];
  for (let row = 0; row < rows; row += every) {
    const top = mapMargin + row * cellHeight + Math.min(cellHeight, addressHeight) / 2;
    labels.push(
      <span key={row} style={{ top: `${top}px` }}>
        {formatHex((firstRow + row) * pagesPerRow * pageSize)}
      </span>,
    );
  }
  return (
    <div class="map-addresses" aria-hidden="true">
      {labels}
    </div>
  );
}

/** Shows where the visible rows are within the block. It can be dragged. */
export function MapScrollBar({ layout, firstRow, onRow }: Rows & { onRow(row: number): void }) {
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
