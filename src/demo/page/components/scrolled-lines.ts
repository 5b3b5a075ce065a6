/** Scrolls a box by lines, of which only the visible ones exist. The arithmetic is in `line-scroll.ts`. */
import { useRef, useState } from 'preact/hooks';
import { clampLine, type LineArea, lineAfterScroll, scrollTopOf } from '../line-scroll.ts';

interface ScrolledLines {
  /** The first visible line. */
  first: number;
  /** Scrolls to a line. */
  show(line: number): void;
  onScroll(): void;
  /** Whether the scroll bar is at the top. */
  isAtTop(): boolean;
}

export function useScrolledLines(box: { current: HTMLElement | null }, area: LineArea): ScrolledLines {
  // May be a fraction of a line, so that small movements add up.
  const [line, setLine] = useState(0);
  const lastTop = useRef(0);
  return {
    first: clampLine(area, Math.floor(line)),
    show: (next) => {
      const clamped = clampLine(area, next);
      setLine(clamped);
      const element = box.current;
      if (element === null) return;
      element.scrollTop = scrollTopOf(area, clamped, element.clientHeight);
      // The browser rounds it.
      lastTop.current = element.scrollTop;
    },
    onScroll: () => {
      const { scrollTop: top = 0, clientHeight: boxHeight = 0 } = box.current ?? {};
      const moved = top - lastTop.current;
      if (moved === 0) return;
      lastTop.current = top;
      setLine((now) => lineAfterScroll(area, now, { top, moved, boxHeight }));
    },
    isAtTop: () => lastTop.current === 0,
  };
}
