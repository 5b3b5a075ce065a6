/** The RAM map with touch input, in a real Chromium. */
import type { CDPSession, Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { executablePath, openFiles, openSample, part, sample, serveDemo } from './demo-page.ts';

interface Point {
  x: number;
  y: number;
}

/** Steps of a finger's movement. */
const steps = 8;

describe.skipIf(executablePath === undefined)('the map with touch input, in Chromium', () => {
  const demo = serveDemo();
  const phone = { viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true };

  /** Moves fingers from their first positions to the positions where they are lifted. */
  async function slide(session: CDPSession, fingers: [from: Point, to: Point][]): Promise<void> {
    const send = (type: 'touchStart' | 'touchMove' | 'touchEnd', share: number) =>
      session.send('Input.dispatchTouchEvent', {
        type,
        touchPoints:
          type === 'touchEnd'
            ? []
            : fingers.map(([from, to], id) => ({
                x: from.x + (to.x - from.x) * share,
                y: from.y + (to.y - from.y) * share,
                id,
              })),
      });
    await send('touchStart', 0);
    for (let step = 1; step <= steps; step++) await send('touchMove', step / steps);
    await send('touchEnd', 1);
  }

  const scrollToMap = (page: Page) =>
    page.evaluate("document.querySelector('[data-test=map]').scrollIntoView({ block: 'center', behavior: 'instant' })");

  async function showMap() {
    const page = await demo.show(demo.plain, phone);
    await openSample(page);
    const map = part(page, 'map');
    await scrollToMap(page);
    const box = await map.boundingBox();
    if (box === null) throw new Error('there is no map');
    const session = await page.context().newCDPSession(page);
    const at = (x: number, y: number): Point => ({ x: box.x + box.width * x, y: box.y + box.height * y });
    const number = async (name: string) => Number(await map.getAttribute(name));
    const perRow = () => number('data-pages-per-row');
    return { page, session, at, perRow, firstRow: () => number('data-first-row') };
  }

  const scrolled = (page: Page) => page.evaluate('scrollY') as Promise<number>;
  const scale = (page: Page) => page.evaluate('visualViewport.scale') as Promise<number>;

  it('zooms on a pinch, and the page does not', async () => {
    const { page, session, at, perRow } = await showMap();
    const far = await perRow();
    await slide(session, [
      [at(0.45, 0.45), at(0.1, 0.1)],
      [at(0.55, 0.55), at(0.9, 0.9)],
    ]);
    await expect.poll(perRow).toBeLessThan(far);
    expect(await scale(page)).toBe(1);
    const near = await perRow();
    await slide(session, [
      [at(0.1, 0.1), at(0.45, 0.45)],
      [at(0.9, 0.9), at(0.55, 0.55)],
    ]);
    await expect.poll(perRow).toBeGreaterThan(near);
    expect(await scale(page)).toBe(1);
  });

  it('keeps the page between the fingers in place', async () => {
    const { page, session, at, perRow } = await showMap();
    const far = await perRow();
    // The last quarter of the block.
    await slide(session, [
      [at(0.5, 0.8), at(0.5, 0.6)],
      [at(0.5, 0.84), at(0.5, 0.98)],
    ]);
    await expect.poll(perRow).toBeLessThan(far);
    const map = part(page, 'map');
    const [first, row] = [Number(await map.getAttribute('data-first-row')), await perRow()];
    // The visible part, of 512 pages, begins after the first half.
    expect(first * row).toBeGreaterThan(256);
  });

  it('lets the page scroll if there is nothing to move', async () => {
    const { page, session, at } = await showMap();
    const before = await scrolled(page);
    await slide(session, [[at(0.5, 0.8), at(0.5, 0.1)]]);
    await expect.poll(() => scrolled(page)).toBeGreaterThan(before + 50);
  });

  it('moves with two fingers when zoomed, while one finger still scrolls the page', async () => {
    const { page, session, at, firstRow } = await showMap();
    await part(page, 'map').press('+');
    await part(page, 'map').press('+');
    await part(page, 'map').press('Home');
    await expect.poll(firstRow).toBe(0);
    await scrollToMap(page);
    const before = await scrolled(page);
    await slide(session, [
      [at(0.3, 0.9), at(0.3, 0.3)],
      [at(0.6, 0.9), at(0.6, 0.3)],
    ]);
    await expect.poll(firstRow).toBeGreaterThan(0);
    expect(await scrolled(page)).toBe(before);
    const row = await firstRow();
    await slide(session, [[at(0.5, 0.9), at(0.5, 0.2)]]);
    await expect.poll(() => scrolled(page)).toBeGreaterThan(before + 30);
    expect(await firstRow()).toBe(row);
  });

  it('shows a page on a tap', async () => {
    const { page, at } = await showMap();
    const { x, y } = at(0.96, 0.95);
    await page.touchscreen.tap(x, y);
    await expect.poll(() => part(page, 'cursor').textContent()).toContain('page 511 at 0x1ff000');
  });

  it('opens files on a phone', async () => {
    const page = await demo.show(demo.plain, phone);
    await openFiles(page, sample);
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
