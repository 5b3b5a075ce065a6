/** Summarizes the bytes of a layer, one per page, in cells of a map. */
import type { PageStates } from '../../vm/page-states.ts';
import type { CellMap } from '../protocol.ts';

/** The pages that a map shows, and how it groups them in cells. */
interface CellRange {
  first: number;
  pagesPerCell: number;
  cells: number;
  /** Number of pages of the block. */
  pages: number;
}

const maxCells = 65_536;

/** Counts the pages of each class per cell. `classOf` maps bytes to classes. */
export function countClasses(
  states: PageStates,
  range: CellRange,
  classOf: Uint8Array,
  classes: number,
): CellMap & { kind: 'classes' } {
  const counts = new Uint32Array(requireCells(range) * classes);
  eachCell(states, range, (cell, values, from, to, value) => {
    const at = cell * classes;
    if (values === undefined) {
      counts[at + (classOf[value] as number)]! += to - from;
      return;
    }
    for (let i = from; i < to; i++) counts[at + (classOf[values[i] as number] as number)]!++;
  });
  return { kind: 'classes', classes, counts };
}

/** The value of a cell whose pages have no known value. */
const noValue = 255;

/** The largest byte of each cell. Bytes of 0 are not known. */
export function latestValues(states: PageStates, range: CellRange): CellMap & { kind: 'values' } {
  const most = new Uint8Array(requireCells(range));
  eachCell(states, range, (cell, values, from, to, value) => {
    let max = Math.max(most[cell] as number, values === undefined ? value : 0);
    if (values !== undefined) for (let i = from; i < to; i++) max = Math.max(max, values[i] as number);
    most[cell] = max;
  });
  return { kind: 'values', values: most.map((value) => (value === 0 ? noValue : value)) };
}

/** The mean of the bytes of each cell, minus 1. Bytes of 0 are not known. */
export function meanValues(states: PageStates, range: CellRange): CellMap & { kind: 'values' } {
  const sums = new Float64Array(requireCells(range));
  const known = new Float64Array(range.cells);
  eachCell(states, range, (cell, values, from, to, value) => {
    if (values === undefined) {
      if (value === 0) return;
      sums[cell]! += (value - 1) * (to - from);
      known[cell]! += to - from;
      return;
    }
    for (let i = from; i < to; i++) {
      if (values[i] === 0) continue;
      sums[cell]! += (values[i] as number) - 1;
      known[cell]!++;
    }
  });
  const mean = (sum: number, cell: number) => (known[cell] === 0 ? noValue : Math.round(sum / (known[cell] as number)));
  return { kind: 'values', values: Uint8Array.from(sums, mean) };
}

/** Visits the pages of each cell in pieces: either entries `from` to `to` of `values`, or pages that all have `value`. */
function eachCell(
  states: PageStates,
  { first, pagesPerCell, cells, pages }: CellRange,
  visit: (cell: number, values: Uint8Array | undefined, from: number, to: number, value: number) => void,
): void {
  const end = Math.min(pages, first + cells * pagesPerCell);
  for (const piece of states.pieces(first, end)) {
    for (let page = piece.first; page < piece.end; ) {
      const cell = Math.floor((page - first) / pagesPerCell);
      const stop = Math.min(piece.end, first + (cell + 1) * pagesPerCell);
      visit(cell, piece.states, page - piece.first, stop - piece.first, piece.state);
      page = stop;
    }
  }
}

/** @throws RangeError */
function requireCells({ first, pagesPerCell, cells }: CellRange): number {
  const areCounts = [first, pagesPerCell, cells].every((n) => Number.isSafeInteger(n) && n >= 0);
  if (areCounts && pagesPerCell >= 1 && cells <= maxCells) return cells;
  throw new RangeError(
    `expected at most ${maxCells} cells of whole pages, got ${cells} of ${pagesPerCell} from ${first}`,
  );
}
