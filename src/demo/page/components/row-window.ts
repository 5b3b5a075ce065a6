/** Limits how many rows of a long tree exist at once, since browsers cannot lay out a million of them. */
import { useState } from 'preact/hooks';

/** Rows that exist at once. */
const rowsAtOnce = 2000;
const half = rowsAtOnce / 2;

interface RowWindow {
  /** The rows that exist: `from` up to but not including `to`. */
  from: number;
  to: number;
  showAbove(): void;
  showBelow(): void;
}

/** When `current`, the key of the row number `at`, changes, that row exists. */
export function useRowWindow(rows: number, current: string, at: number): RowWindow {
  const [first, setFirst] = useState(0);
  const [seen, setSeen] = useState(current);
  let from = Math.min(first, Math.max(0, rows - 1));
  if (seen !== current) {
    if (at < from || at >= from + rowsAtOnce) from = Math.max(0, at - half);
    setSeen(current);
    setFirst(from);
  }
  return {
    from,
    to: Math.min(rows, from + rowsAtOnce),
    showAbove: () => setFirst(Math.max(0, from - half)),
    showBelow: () => setFirst(from + half),
  };
}
