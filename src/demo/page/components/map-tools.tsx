/** Below the RAM map: buttons that zoom, the scale of the map, and how to use it. */
import { formatBytes } from '../../../words/format.ts';
import type { MapWindow } from './map-window.ts';

interface Props {
  window: MapWindow;
  pageSize: number;
  /** The page that stays in place when the map zooms. */
  cursor: number;
}

export function MapTools({ window, pageSize, cursor }: Props) {
  const { layout, canZoomIn, canZoomOut, zoom } = window;
  return (
    <div class="map-tools">
      <button type="button" onClick={() => zoom(1, cursor)} disabled={!canZoomIn}>
        Zoom in
      </button>
      <button type="button" onClick={() => zoom(-1, cursor)} disabled={!canZoomOut}>
        Zoom out
      </button>
      <button type="button" onClick={() => zoom(Number.NEGATIVE_INFINITY, cursor)} disabled={!canZoomOut}>
        Show all
      </button>
      <span class="note">
        {formatBytes(layout.pagesPerRow * pageSize)} per row,{' '}
        {layout.pagesPerCell > 1 ? `${layout.pagesPerCell} pages` : 'one page'} per cell
        {layout.pagesPerCell > 1 ? ', in the mean of their colours' : ''}
      </span>
    </div>
  );
}

/** The element with the id `map-keys` describes the map to screen readers. */
export function MapHelp() {
  return (
    <>
      <p class="note fingers">Tap to show the bytes of a page. Use two fingers to move and zoom.</p>
      <p id="map-keys" class="note keys">
        Click or <kbd>Enter</kbd>: show the bytes of the page. Arrow keys, <kbd>Page Up</kbd>, <kbd>Page Down</kbd>,{' '}
        <kbd>Home</kbd>, <kbd>End</kbd>: move. <kbd>+</kbd>, <kbd>-</kbd>, <kbd>0</kbd> or <kbd>Ctrl</kbd> and the
        wheel: zoom.
      </p>
    </>
  );
}
