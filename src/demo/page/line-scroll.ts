/**
 * Converts between lines of text and pixels of a scroll bar. Browsers limit the height of a box. If all lines together are
 * higher, the scroll bar stands for a share of the lines, and small movements still scroll line by line.
 */

export interface LineArea {
  /** Lines of the whole content. */
  lines: number;
  /** Lines that the box shows at a time. The last one may be cut off. */
  visible: number;
  /** In CSS pixels. */
  lineHeight: number;
}

/** The highest box that is safe in all browsers, in CSS pixels. */
const maxHeight = 8_000_000;

const isScaled = ({ lines, lineHeight }: LineArea) => lines * lineHeight > maxHeight;

/** The first visible line when the view is scrolled to the end. */
const lastTopLine = ({ lines, visible }: LineArea) => Math.max(0, lines - visible + 1);

/** Height of the content, in CSS pixels. */
export const contentHeight = ({ lines, lineHeight }: LineArea) => Math.min(lines * lineHeight, maxHeight);

/** The nearest line that can be the first visible one. */
export const clampLine = (area: LineArea, line: number) => Math.min(Math.max(0, line), lastTopLine(area));

/** Where the scroll bar stands if `line` is the first visible line. `boxHeight` is the visible height. */
export function scrollTopOf(area: LineArea, line: number, boxHeight: number): number {
  if (!isScaled(area)) return line * area.lineHeight;
  return (line / Math.max(1, lastTopLine(area))) * (maxHeight - boxHeight);
}

/** The first visible line after the scroll bar moved by `moved` pixels to `top`. Before, it was `line`. */
export function lineAfterScroll(
  area: LineArea,
  line: number,
  { top, moved, boxHeight }: { top: number; moved: number; boxHeight: number },
): number {
  if (!isScaled(area)) return top / area.lineHeight;
  if (Math.abs(moved) < 2 * boxHeight && top > 0) return line + moved / area.lineHeight;
  return (top / (maxHeight - boxHeight)) * lastTopLine(area);
}
