/** The built page, served as a static folder and shown in a real Chromium. Shared by the page's tests. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AxeResults } from 'axe-core';
import { type Browser, type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { hangGuardMs } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { type FolderServer, serveFolder } from './folder-server.ts';

export const executablePath = findChromium();
export const folder = fileURLToPath(new URL('../../dist-demo/', import.meta.url));
export const sample = fixturePath('pc-xbzrle-10.0.bin');
export const earlier = fixturePath('pc-plain-10.0.bin');

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export interface ShowOptions extends BrowserContextOptions {
  /** Saves by downloads, or to a file that stands for the one chosen in the browser's dialog. */
  saving?: 'download' | 'choose';
  /** Runs in the page before its own scripts. */
  before?: string;
  /** Runs in its worker before the worker's own script. */
  inWorker?: string;
  /** Ignores the console: the browser reports scripts that it cannot run. */
  mayComplain?: true;
}

/** Serves the page to the tests of a `describe`, and closes what they opened. */
export function serveDemo() {
  let browser: Browser;
  const pages: Page[] = [];
  const demo = {
    plain: undefined as unknown as FolderServer,
    isolated: undefined as unknown as FolderServer,
    /** A folder for files. */
    scratch: '',
    /** Console messages, and requests to other servers. */
    complaints: [] as string[],
    strangers: [] as string[],

    async show({ page: address }: FolderServer, options: ShowOptions = {}): Promise<Page> {
      const { saving = 'download', before, inWorker, mayComplain = false, ...ofContext } = options;
      const context = await browser.newContext({
        viewport: { width: 1280, height: 900 },
        // A click on something that still scrolls may end on something else.
        reducedMotion: 'reduce',
        ...ofContext,
      });
      context.setDefaultTimeout(hangGuardMs);
      const page = await context.newPage();
      pages.push(page);
      page.on('console', (message) => {
        if (!mayComplain && ['error', 'warning'].includes(message.type()))
          demo.complaints.push(`${message.text()} (${message.location().url})`);
      });
      page.on('pageerror', (error) => {
        if (!mayComplain) demo.complaints.push(String(error));
      });
      context.on('request', (request) => {
        const { protocol, origin } = new URL(request.url());
        if (protocol !== 'blob:' && origin !== new URL(address).origin) demo.strangers.push(request.url());
      });
      // Tests cannot reach the browser's dialog.
      await page.addInitScript(
        saving === 'download'
          ? 'delete globalThis.showSaveFilePicker'
          : `globalThis.showSaveFilePicker = async () =>
               (await navigator.storage.getDirectory()).getFileHandle('chosen', { create: true })`,
      );
      if (before !== undefined) await page.addInitScript(before);
      if (inWorker !== undefined) {
        await context.route(/\/assets\/worker-[^/]*\.js$/, async (route) => {
          const response = await route.fetch();
          await route.fulfill({ response, body: `${inWorker};${await response.text()}` });
        });
      }
      await page.goto(address);
      return page;
    },
  };

  beforeAll(async () => {
    if (!existsSync(join(folder, 'index.html'))) throw new Error('the page is not built: npm run demo:build');
    demo.scratch = mkdtempSync(join(tmpdir(), 'vmferry-demo-'));
    const files = new Map([['guest.migration', readFileSync(sample)]]);
    demo.plain = await serveFolder(folder, { files });
    demo.isolated = await serveFolder(folder, { isIsolated: true });
    browser = await chromium.launch({ executablePath: executablePath as string, args: launchFlags });
  });

  afterEach(async () => {
    for (const page of pages.splice(0)) await page.context().close();
  });

  afterAll(async () => {
    await browser?.close();
    await demo.plain?.close();
    await demo.isolated?.close();
    rmSync(demo.scratch, { recursive: true, force: true });
  });

  return demo;
}

/** The serious problems that axe finds. */
export async function seriousIn(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const { violations } = (await page.evaluate("axe.run({ resultTypes: ['violations'] })")) as AxeResults;
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}

/** How many pixels the page is wider than its window. */
export const overflowOf = (page: Page) =>
  page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');

export const part = (page: Page, name: string): Locator => page.locator(`[data-test="${name}"]`);

export const press = (page: Page, name: string) => page.getByRole('button', { name, exact: true }).click();

export async function openSample(page: Page): Promise<void> {
  await press(page, 'Open the sample');
  await page.locator('.verdict.is-ok').waitFor();
}

export async function openFiles(page: Page, ...paths: string[]): Promise<void> {
  await part(page, 'files').setInputFiles(paths);
  await part(page, 'verdict').or(part(page, 'failure')).first().waitFor();
}

/** Clicks a button of the menu, and saves the download to a folder. */
export async function saved(to: string, page: Page, button: string | RegExp): Promise<string> {
  await part(page, 'export').locator('summary').click();
  const begun = page.waitForEvent('download');
  await part(page, 'export').getByRole('button', { name: button }).click();
  const download = await begun;
  const path = join(to, download.suggestedFilename());
  await download.saveAs(path);
  return path;
}

/** Drops a file onto the first element that a selector finds. */
export async function drop(page: Page, path: string, selector: string): Promise<void> {
  const bytes = readFileSync(path).toString('base64');
  const given = await page.evaluateHandle(
    ([text, name]) => {
      const transfer = new DataTransfer();
      const content = Uint8Array.from(atob(text as string), (character) => character.charCodeAt(0));
      transfer.items.add(new File([content], name as string));
      return transfer;
    },
    [bytes, basename(path)],
  );
  await page.locator(selector).first().dispatchEvent('drop', { dataTransfer: given });
}
