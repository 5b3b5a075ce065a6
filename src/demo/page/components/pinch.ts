/**
 * Pan, zoom and tap gestures of fingers, the mouse and the wheel on the map. Points are in pixels from its corner. Two fingers move
 * and zoom the map. One finger scrolls the page, so that the map does not trap it (its touch-action is pan-y).
 */
import { useRef } from 'preact/hooks';

interface Point {
  x: number;
  y: number;
}

interface Gestures {
  /** Moves the map down by pixels. Returns whether anything moved. */
  pan(pixels: number): boolean;
  /** Each step doubles the size. */
  zoom(steps: number, at: Point): void;
  tap(at: Point): void;
}

/** A pointer that moves less than this taps. */
const steady = 5;
/** Pixels of the wheel per step of zoom. */
const wheelStep = 60;

export function usePinch({ pan, zoom, tap }: Gestures) {
  const pointers = useRef(new Map<number, Point>());
  const gesture = useRef({ start: { x: 0, y: 0 }, hasMoved: false, left: 0, spread: 0 });
  const pointOf = (event: MouseEvent): Point => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  /** The distance between two fingers, and the point between them. */
  const measure = () => {
    const [a, b] = [...pointers.current.values()];
    if (a === undefined || b === undefined) return undefined;
    return { spread: Math.hypot(a.x - b.x, a.y - b.y), middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } };
  };

  const onPointerDown = (event: PointerEvent) => {
    if (event.button !== 0) return;
    const point = pointOf(event);
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    pointers.current.set(event.pointerId, point);
    gesture.current = { start: point, hasMoved: pointers.current.size > 1, left: 0, spread: measure()?.spread ?? 0 };
  };
  const onPointerMove = (event: PointerEvent) => {
    const before = pointers.current.get(event.pointerId);
    if (before === undefined) return;
    const point = pointOf(event);
    pointers.current.set(event.pointerId, point);
    const now = gesture.current;
    const two = measure();
    if (Math.hypot(point.x - now.start.x, point.y - now.start.y) > steady) now.hasMoved = true;
    if (two === undefined && event.pointerType !== 'mouse') return;
    now.left += (point.y - before.y) / pointers.current.size;
    if (now.hasMoved) {
      pan(now.left);
      now.left = 0;
    }
    if (two === undefined) return;
    if (now.spread === 0) now.spread = two.spread;
    const steps = Math.trunc(Math.log2(two.spread / now.spread));
    if (!Number.isFinite(steps) || steps === 0) return;
    now.spread *= 2 ** steps;
    zoom(steps, two.middle);
  };
  const onPointerUp = (event: PointerEvent) => {
    const isLast = pointers.current.delete(event.pointerId) && pointers.current.size === 0;
    if (isLast && event.type === 'pointerup' && !gesture.current.hasMoved) tap(pointOf(event));
  };
  /** Keeps the page from scrolling or zooming with the map. */
  const onTouch = (event: TouchEvent) => {
    if (event.touches.length > 1 && event.cancelable) event.preventDefault();
  };
  const onWheel = (event: WheelEvent) => {
    if (!event.ctrlKey) {
      // At the end of the map, the page scrolls.
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
  const onTouches = { onTouchStart: onTouch, onTouchMove: onTouch };
  return { onPointerDown, onPointerMove, onPointerUp, onPointerCancel: onPointerUp, onWheel, ...onTouches };
}
