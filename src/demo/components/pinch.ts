/** What fingers, a mouse and a wheel do on a map: pan, zoom and tap. Points are in pixels from its corner. */
import { useRef } from 'preact/hooks';

interface Point {
  x: number;
  y: number;
}

interface Gestures {
  /** Pixels downward. Returns whether anything moved. */
  pan(pixels: number): boolean;
  /** Steps of twice as near. */
  zoom(steps: number, at: Point): void;
  tap(at: Point): void;
}

/** A pointer that moved less than that was meant to tap. */
const steady = 5;
/** Pixels of a wheel for a step of zoom. */
const wheelStep = 60;

export function usePinch({ pan, zoom, tap }: Gestures) {
  const pointers = useRef(new Map<number, Point>());
  const gesture = useRef({ start: { x: 0, y: 0 }, hasMoved: false, left: 0, spread: 0 });
  const pointOf = (event: MouseEvent): Point => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const spread = () => {
    const [a, b] = [...pointers.current.values()];
    return a === undefined || b === undefined ? 0 : Math.hypot(a.x - b.x, a.y - b.y);
  };

  const onPointerDown = (event: PointerEvent) => {
    if (event.button !== 0) return;
    const point = pointOf(event);
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    pointers.current.set(event.pointerId, point);
    gesture.current = { start: point, hasMoved: pointers.current.size > 1, left: 0, spread: spread() };
  };
  const onPointerMove = (event: PointerEvent) => {
    const before = pointers.current.get(event.pointerId);
    if (before === undefined) return;
    const point = pointOf(event);
    pointers.current.set(event.pointerId, point);
    const now = gesture.current;
    if (pointers.current.size === 1) {
      if (Math.hypot(point.x - now.start.x, point.y - now.start.y) > steady) now.hasMoved = true;
      now.left += point.y - before.y;
      if (now.hasMoved) {
        pan(now.left);
        now.left = 0;
      }
      return;
    }
    const wide = spread();
    if (now.spread === 0) now.spread = wide;
    const steps = Math.trunc(Math.log2(wide / now.spread));
    if (steps === 0) return;
    now.spread = wide;
    zoom(steps, point);
  };
  const onPointerUp = (event: PointerEvent) => {
    const isLast = pointers.current.delete(event.pointerId) && pointers.current.size === 0;
    if (isLast && event.type === 'pointerup' && !gesture.current.hasMoved) tap(pointOf(event));
  };
  const onWheel = (event: WheelEvent) => {
    if (!event.ctrlKey) {
      // Where there is nothing left to pan the page scrolls.
      if (pan(-event.deltaY)) event.preventDefault();
      return;
    }
    event.preventDefault();
    const now = gesture.current;
    now.left -= event.deltaY;
    const steps = Math.trunc(now.left / wheelStep);
    if (steps === 0) return;
    now.left = 0;
    zoom(steps, pointOf(event));
  };
  return { onPointerDown, onPointerMove, onPointerUp, onPointerCancel: onPointerUp, onWheel };
}
