/** Measures how many lines of text fit into a box, and whether a full line of 16 bytes fits. */
import { useLayoutEffect, useState } from 'preact/hooks';

interface LineBox {
  /** Lines that the box shows at a time. */
  lines: number;
  /** Whether a line of 16 bytes in hex fits. */
  isWide: boolean;
  /** In CSS pixels. */
  lineHeight: number;
}

/** Width of a line of 16 bytes in hex, in characters. */
const wideLine = 79;
/** Left and right padding of the box, in CSS pixels. */
const padding = 16;
/** Characters in the element with the class `probe`. */
const probeLength = 10;

/** `box` must contain an element with the class `probe` that holds ten characters. */
export function useLineBox(box: { current: HTMLElement | null }): LineBox {
  const [measured, setMeasured] = useState<LineBox>({ lines: 20, isWide: true, lineHeight: 18 });
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const measure = () => {
      const probe = element.querySelector('.probe') as HTMLElement;
      const { width, height: lineHeight } = probe.getBoundingClientRect();
      if (lineHeight === 0) return;
      setMeasured({
        lines: Math.ceil(element.clientHeight / lineHeight),
        isWide: element.clientWidth >= (width / probeLength) * wideLine + padding,
        lineHeight,
      });
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return measured;
}
