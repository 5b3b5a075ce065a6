/** The RAM map of a file that is being opened. It fills while the file is read, and shows the largest block as a whole. */
import { useEffect, useRef } from 'preact/hooks';
import { printable } from '../../../words/format.ts';
import type { BlockView, OpeningFile } from '../../protocol.ts';
import { readColours } from '../map-colours.ts';
import { farthestRow, layOut } from '../map-layout.ts';
import { paintMap } from '../map-paint.ts';
import { readMap } from '../session.ts';
import { useElementWidth } from './element-width.ts';
import { fitToScreen, mapMargin } from './map-canvas.ts';

/** Height of the map, in CSS pixels. */
const height = 330;
/** Time between two paintings. Each costs as much as reading some MiB. */
const intervalMs = 400;

/** `done`: the bytes that have been read. When they change, the map is painted anew, unless it was painted just before. */
export function OpeningMap({ file, done }: { file: OpeningFile; done: number }) {
  const view = largestOf(file.blocks);
  return view === undefined || view.pages === 0 ? null : <FillingMap file={file.id} view={view} done={done} />;
}

function FillingMap({ file, view, done }: { file: number; view: BlockView; done: number }) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const isBusy = useRef(false);
  const painted = useRef(Number.NEGATIVE_INFINITY);
  const width = useElementWidth(box) - 2 * mapMargin;
  useEffect(() => {
    // The next progress asks again if an answer is still on its way.
    if (width <= 0 || isBusy.current || performance.now() - painted.current < intervalMs) return;
    painted.current = performance.now();
    const space = { width, height: height - 2 * mapMargin };
    const layout = layOut(view.pages, space, farthestRow(view.pages, space));
    const { pagesPerCell, visibleRows, columns } = layout;
    isBusy.current = true;
    const query = { file, block: view.index, layer: 'state', first: 0, pagesPerCell } as const;
    void readMap({ ...query, cells: visibleRows * columns })
      .then(
        (cells) => {
          const element = canvas.current;
          const context = element?.getContext('2d');
          if (element === null || context === null || context === undefined) return;
          fitToScreen(element, context);
          const colour = readColours(element);
          paintMap(context, { layout, firstRow: 0, layer: 'state', cells, most: 1, cursor: undefined, colour });
        },
        // The file is open by now, or the opening has ended.
        () => {},
      )
      .finally(() => {
        isBusy.current = false;
      });
  }, [file, view.index, width, done]);
  const label = `RAM map of ${printable(view.idstr)}, as far as the file has been read`;
  return (
    <div
      ref={box}
      class="map-canvas"
      role="img"
      aria-label={label}
      data-test="opening-map"
      style={{ height: `${height}px` }}
    >
      <canvas ref={canvas} />
    </div>
  );
}

/** The largest block is the main RAM. */
function largestOf(blocks: readonly BlockView[]): BlockView | undefined {
  return blocks.reduce<BlockView | undefined>(
    (largest, block) => (largest === undefined || block.pages > largest.pages ? block : largest),
    undefined,
  );
}
