/** The workers of the page, in a real Chromium: their policy, what they do without shared memory, and when they fail. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { executablePath, folder, openFiles, part, sample, serveDemo } from './demo-page.ts';
import { serveFolder } from './folder-server.ts';

describe.skipIf(executablePath === undefined)('the workers of the page, in Chromium', () => {
  const demo = serveDemo();

  it('keep to the policy of the page: those that the page starts, and those that a worker starts', async () => {
    const elsewhere = await serveFolder(folder);
    const copy = join(demo.scratch, 'copy');
    cpSync(folder, copy, { recursive: true });
    const scripts = readdirSync(join(copy, 'assets')).filter((name) => /^(worker|page-helper)-.*\.js$/.test(name));
    expect(scripts.length).toBe(2);
    for (const name of scripts) {
      const attempt = `const report = (outcome) => fetch(new URL('../files/${name}-' + outcome, import.meta.url));
        fetch(${JSON.stringify(elsewhere.page)}, { mode: 'no-cors' }).then(() => report('got-out'), () => report('blocked'));`;
      const path = join(copy, 'assets', name);
      writeFileSync(path, `${attempt}\n${readFileSync(path, 'utf8')}`);
    }
    const server = await serveFolder(copy, { isIsolated: true });
    try {
      const page = await demo.show(server, { mayComplain: true });
      await openFiles(page, sample);
      await part(page, 'map-layer').selectOption('entropy');
      await expect.poll(() => part(page, 'cursor').textContent()).toContain('bits per byte');
      const outcomes = () => server.requests.flatMap(({ path }) => path.match(/files\/(.*)$/)?.[1] ?? []);
      await expect.poll(() => new Set(outcomes().map((each) => each.split('.')[0]?.split('-')[0])).size).toBe(2);
      for (const outcome of outcomes()) expect(outcome).toMatch(/blocked$/);
      expect(elsewhere.requests).toEqual([]);
    } finally {
      await server.close();
      await elsewhere.close();
    }
  });

  it('measure pages without shared memory, though the page is isolated (as in WebKit)', async () => {
    const without = 'delete globalThis.SharedArrayBuffer';
    const page = await demo.show(demo.isolated, { before: without, inWorker: without });
    expect(await page.evaluate('crossOriginIsolated')).toBe(true);
    await openFiles(page, sample);
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => part(page, 'means').textContent()).toContain('no shared memory');
    await part(page, 'map-layer').selectOption('entropy');
    await expect.poll(() => part(page, 'cursor').textContent()).toMatch(/[1-7]\.\d\d bits per byte/);
  });

  const saves = [
    ['a zip archive', 'zip', /All blocks/],
    ['a mapped-ram file', 'mapped-ram', /mapped-ram/],
  ] as const;
  it.each(saves)('end the saving of %s when they throw, and the page says so', async (_, how, button) => {
    // No call waits for these errors: one in an event handler, and one of a promise.
    const broken = {
      zip: `setTimeout(() => { throw new Error('broken on purpose'); })`,
      'mapped-ram': `void Promise.reject(new Error('broken on purpose'))`,
    }[how];
    const inWorker = `{
      const { addEventListener } = globalThis;
      globalThis.addEventListener = (type, listener) => addEventListener.call(globalThis, type, type !== 'message' ? listener : (event) => {
        if (!/^(convert|exportBlocks)$/.test(event.data.method)) return listener(event);
        ${broken};
      });
    }`;
    const page = await demo.show(demo.plain, { inWorker, mayComplain: true });
    await openFiles(page, sample);
    await page.locator('.verdict.is-ok').waitFor();
    // All other calls have ended by then.
    await page.locator('[role=treeitem]').first().waitFor();
    await page.locator('.bytes-view .line:not(.is-unread)').first().waitFor();
    await part(page, 'export').locator('summary').click();
    await part(page, 'export').getByRole('button', { name: button }).click();
    await part(page, 'failure').waitFor();
    expect(await part(page, 'failure').textContent()).toContain('broken on purpose');
    // The page goes on.
    await part(page, 'device-search').fill('base_rtc');
    await part(page, 'device-matches').getByRole('button', { name: 'base_rtc' }).waitFor();
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
