/** What the page has open after Reload, Back, Forward and a click on a link, in a real Chromium; and what Cancel ends. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { earlier, executablePath, folder, openFiles, openSample, part, press, sample, serveDemo } from './demo-page.ts';
import { serveFolder } from './folder-server.ts';

describe.skipIf(executablePath === undefined)('the page and the history of the browser, in Chromium', () => {
  const demo = serveDemo();
  const name = (page: Page) => page.locator('main h2').first();
  /** Waits until a file is open under this name. */
  async function expectOpen(page: Page, expected: string): Promise<void> {
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => name(page).textContent()).toBe(expected);
  }

  it('has the same file after Reload, and after a way to another page and Back', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await page.reload();
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await page.reload();
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await page.goto(`${demo.plain.page}remote.html`);
    await page.goBack();
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
  });

  it('goes from file to file on Back and Forward', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await press(page, 'Open another');
    await openFiles(page, earlier);
    await expectOpen(page, 'pc-plain-10.0.bin');
    await page.goBack();
    await page.getByRole('button', { name: 'Open the sample' }).waitFor();
    await page.goBack();
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await page.goForward();
    await page.goForward();
    await expectOpen(page, 'pc-plain-10.0.bin');
  });

  it('has the sample again after Reload', async () => {
    const page = await demo.show(demo.plain);
    await openSample(page);
    await page.reload();
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    await page.getByRole('button', { name: 'Compare with the earlier sample' }).waitFor();
  });

  it('asks for a file that is too large to keep, by its name', async () => {
    const path = join(demo.scratch, 'large.bin');
    writeFileSync(path, Buffer.concat([readFileSync(sample), Buffer.alloc(65 << 20)]));
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await expectOpen(page, 'large.bin');
    await page.reload();
    await part(page, 'lost').waitFor();
    expect(await part(page, 'lost').textContent()).toContain('large.bin was open here');
    await part(page, 'lost').getByRole('button', { name: 'Choose the file again' }).waitFor();
    await part(page, 'lost-files').setInputFiles(path);
    await expectOpen(page, 'large.bin');
  });

  it('keeps nothing of a file that the user has closed', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    await expectOpen(page, 'pc-xbzrle-10.0.bin');
    const kept = `new Promise((resolve) => {
      const opening = indexedDB.open('vmferry', 1);
      opening.onsuccess = () => {
        const counting = opening.result.transaction('open-files').objectStore('open-files').count();
        counting.onsuccess = () => { opening.result.close(); resolve(counting.result); };
      };
    })`;
    await expect.poll(() => page.evaluate(kept)).toBe(1);
    await press(page, 'Open another');
    await expect.poll(() => page.evaluate(kept)).toBe(0);
  });

  it.each(['index.html', 'remote.html'])(
    'opens the URL in the address of %s, and keeps it over clicks',
    async (file) => {
      const page = await demo.show(demo.plain);
      const url = `${demo.plain.page}files/guest.migration`;
      const address = `${demo.plain.page}${file}#${encodeURIComponent(url)}`;
      await page.goto(address);
      await expectOpen(page, 'guest.migration');
      await page.getByRole('link', { name: 'Findings' }).click();
      await expect.poll(() => page.evaluate('document.activeElement.id')).toBe('findings');
      await page.keyboard.press('Home');
      await page.locator('.skip').press('Enter');
      expect(page.url()).toBe(address);
      await page.reload();
      await expectOpen(page, 'guest.migration');
    },
  );

  it('puts an opened URL into the address', async () => {
    const page = await demo.show(demo.plain);
    await page.getByLabel('URL').fill('files/guest.migration');
    await press(page, 'Open');
    await expectOpen(page, 'guest.migration');
    expect(page.url()).toBe(`${demo.plain.page}#${encodeURIComponent(`${demo.plain.page}files/guest.migration`)}`);
    await press(page, 'Open another');
    expect(page.url()).toBe(demo.plain.page);
  });

  it('says what to do about a URL on another server in its address, without a request', async () => {
    const other = await serveFolder(folder, { files: new Map([['guest', readFileSync(sample)]]), allowsOthers: true });
    try {
      const page = await demo.show(demo.plain);
      await page.goto(`${demo.plain.page}index.html#${other.page}files/guest`);
      await part(page, 'failure').waitFor();
      expect(await part(page, 'failure').textContent()).toContain('is on another server');
      expect(other.requests).toEqual([]);
      await part(page, 'elsewhere').getByRole('link').click();
      await expectOpen(page, 'guest');
      await page.goBack();
      await part(page, 'elsewhere').waitFor();
    } finally {
      await other.close();
    }
  });

  it('reads no bytes after Cancel until the user asks', async () => {
    // The worker never answers these calls.
    const inWorker = `{
      const { addEventListener } = globalThis;
      globalThis.reads = 0;
      globalThis.addEventListener = (type, listener) =>
        addEventListener.call(globalThis, type, type !== 'message' ? listener : (event) => {
          if (event.data.method === 'read' && ++globalThis.reads < 3) return;
          listener(event);
        });
    }`;
    const page = await demo.show(demo.plain, { inWorker });
    await openFiles(page, sample);
    await page.locator('[role=treeitem]').first().waitFor();
    const worker = page.workers()[0];
    const reads = () => worker?.evaluate('globalThis.reads');
    await expect.poll(reads).toBe(1);
    await page.locator('#bytes').getByRole('button', { name: 'Cancel' }).click();
    await part(page, 'bytes-stopped').waitFor();
    // Neither scrolling nor another place reads on.
    await page.locator('.bytes-view').press('End');
    await part(page, 'map').press('End');
    await part(page, 'map').press('Enter');
    await expect.poll(() => part(page, 'bytes-where').textContent()).toContain('Final content of pc.ram');
    expect(await reads()).toBe(1);
    await press(page, 'Read the bytes');
    await expect.poll(reads).toBe(2);
    await page.locator('#bytes').getByRole('button', { name: 'Cancel' }).click();
    await press(page, 'Read the bytes');
    await page.locator('.bytes-view .line:not(.is-unread)').first().waitFor();
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
