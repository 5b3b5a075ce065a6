/** The width of an element, kept up to date. */
import { useLayoutEffect, useState } from 'preact/hooks';

/** In CSS pixels, without the scroll bar. 0 before the first layout. */
export function useElementWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const { current } = element;
    if (current === null) return;
    const measure = () => setWidth(current.clientWidth);
    const observer = new ResizeObserver(measure);
    observer.observe(current);
    measure();
    return () => observer.disconnect();
  }, []);
  return width;
}
