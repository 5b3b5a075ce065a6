/** What the page shows at a glance, in a real Chromium: its height, and a map that shows only what is in the file. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../src/io/byte-source.ts';
import { OutputFile } from '../../src/io/node/output-file.ts';
import { writeStream } from '../../src/write/write-stream.ts';
import { executablePath, openFiles, part, sample, serveDemo } from './demo-page.ts';
import { configuration, SparseRam, writeSparse } from './viewer-files.ts';

/** How far the document goes on below its last element. */
const emptyBelow = (page: Page) =>
  page.evaluate(`(() => {
    const { bottom } = document.querySelector('footer').getBoundingClientRect();
    return document.documentElement.scrollHeight - Math.max(innerHeight, bottom + scrollY);
  })()`);

/** The brightness of the map, 0 to 1, without the margin: of each column of pixels, and of all pixels. */
interface Brightness {
  means: number[];
  medians: number[];
  all: { median: number; least: number; most: number };
  /** Pixels that are clearly darker than the median, below the first quarter of the map. */
  dark: number;
}

/** Waits until the map is painted. */
async function brightnessOf(page: Page): Promise<Brightness> {
  const measured = await page.waitForFunction(`(() => {
    const canvas = document.querySelector('#map canvas');
    const [width, height] = [canvas.width - 6, canvas.height - 6];
    const { data } = canvas.getContext('2d').getImageData(3, 3, width, height);
    if (data[4 * (width >> 1) + 3] === 0) return undefined;
    const pixels = Float32Array.from({ length: width * height }, (_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 765);
    const median = (values) => values.slice().sort()[values.length >> 1];
    const columns = Array.from({ length: width }, (_, x) => Float32Array.from({ length: height }, (_, y) => pixels[y * width + x]));
    const sorted = pixels.slice().sort();
    const middle = sorted[sorted.length >> 1];
    return {
      means: columns.map((column) => column.reduce((sum, each) => sum + each, 0) / height),
      medians: columns.map(median),
      all: { median: middle, least: sorted[0], most: sorted.at(-1) },
      dark: pixels.subarray((height >> 2) * width).filter((each) => each < middle - 0.03).length,
    };
  })()`);
  return (await measured.jsonValue()) as Brightness;
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** A fraction for each page that looks random. */
const noise = (page: number) => (Math.imul(page + 1, 2654435761) >>> 8) / 2 ** 24;

describe.skipIf(executablePath === undefined)('the look of the page, in Chromium', () => {
  const demo = serveDemo();

  it('is as tall as its content, whatever is open', async () => {
    const large = join(demo.scratch, 'large.mapped-ram');
    await writeSparse(large);
    const broken = join(demo.scratch, 'broken');
    writeFileSync(broken, 'no migration stream');
    for (const path of [sample, large, broken]) {
      const page = await demo.show(demo.plain);
      await openFiles(page, path);
      if (path !== broken) await page.locator('.bytes-view .line:not(.is-unread)').first().waitFor();
      for (const width of [1280, 375]) {
        await page.setViewportSize({ width, height: 740 });
        expect(await emptyBelow(page)).toBeLessThan(40);
      }
      if (path === broken) continue;
      await part(page, 'bytes-of').selectOption('file');
      await page.locator('.bytes-view').press('End');
      expect(await emptyBelow(page)).toBeLessThan(40);
    }
  });

  /** Opens a stream of 8,192 pages, some with data. Returns the width of a cell in pixels. */
  async function showMix(page: Page, name: string, hasData: (page: number) => boolean): Promise<number> {
    const path = join(demo.scratch, name);
    const output = new OutputFile(path);
    await writeStream({ configuration, ram: new SparseRam(8192, hasData) }, appendTo(output.file));
    await output.commit();
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
    const map = part(page, 'map');
    const perRow = Number(await map.getAttribute('data-pages-per-row'));
    const said = await page.locator('#map .map-tools .note').textContent();
    const perCell = Number(/, (\d+) pages per cell/.exec(said ?? '')?.[1]);
    expect(perCell).toBeGreaterThan(1);
    const width = (await page.evaluate("document.querySelector('#map canvas').width - 6")) as number;
    return (width * perCell) / perRow;
  }

  it('draws a regular mix of pages in one colour', async () => {
    const page = await demo.show(demo.plain, { viewport: { width: 800, height: 900 } });
    await showMix(page, 'regular', (each) => each % 2 === 0);
    const { medians } = await brightnessOf(page);
    expect(Math.max(...medians) - Math.min(...medians)).toBeLessThan(0.01);
  });

  it('draws a random mix of pages without stripes: no place in a cell is brighter than another', async () => {
    const page = await demo.show(demo.plain, { viewport: { width: 800, height: 900 } });
    const cellWidth = await showMix(page, 'random', (each) => noise(each) < 0.4);
    const { means, all } = await brightnessOf(page);
    const places = [0, 1, 2, 3].map((quarter) =>
      mean(means.filter((_, x) => Math.floor((((x + 0.5) / cellWidth) % 1) * 4) === quarter)),
    );
    expect(Math.max(...places) - Math.min(...places)).toBeLessThan(0.02);
    // Cells with more data are still darker.
    expect(all.most - all.least).toBeGreaterThan(0.2);
  });

  it('shows a single page of another kind', async () => {
    const page = await demo.show(demo.plain, { viewport: { width: 800, height: 900 } });
    // The cursor is on the first page with data, at the top.
    const cellWidth = await showMix(page, 'single', (each) => each === 0 || each === 4101);
    const { dark } = await brightnessOf(page);
    expect(dark).toBeGreaterThan(cellWidth * 3);
    expect(dark).toBeLessThan(cellWidth * 40);
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
