import { describe, expect, it } from 'vitest';
import { clampLine, contentHeight, lineAfterScroll, scrollTopOf } from '../../../src/demo/page/line-scroll.ts';

const boxHeight = 360;
/** One that fits into a box of the browser, and 64 GiB in lines of 16 bytes, which do not. */
const short = { lines: 1000, visible: 20, lineHeight: 18 };
const long = { lines: 2 ** 32, visible: 20, lineHeight: 18 };

describe('scrolling by lines', () => {
  it('gives short content its real height, and limits the height of long content', () => {
    expect(contentHeight(short)).toBe(18_000);
    expect(contentHeight(long)).toBe(8_000_000);
  });

  it.each([
    ['short', short],
    ['long', long],
  ])('keeps the last line of %s content at the bottom', (_, area) => {
    expect(clampLine(area, -5)).toBe(0);
    expect(clampLine(area, Number.POSITIVE_INFINITY)).toBe(area.lines - 19);
  });

  it.each([
    ['short', short, 700],
    ['long', long, 3_000_000_000],
  ])('finds the line of %s content again after the bar was dragged to it', (_, area, line) => {
    const top = scrollTopOf(area, line, boxHeight);
    expect(lineAfterScroll(area, 0, { top, moved: top, boxHeight })).toBeCloseTo(line, 3);
  });

  it('moves long content line by line when the bar moves a little', () => {
    expect(lineAfterScroll(long, 1_000_000, { top: 2000, moved: 36, boxHeight })).toBe(1_000_002);
  });

  it('shows the first line of long content when the bar reaches the top', () => {
    expect(lineAfterScroll(long, 10, { top: 0, moved: -36, boxHeight })).toBe(0);
  });
});
