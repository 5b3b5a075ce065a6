/** Takes the README's screenshots of the page, showing the sample, into docs/images/. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { preview } from 'vite';

const folder = fileURLToPath(new URL('../docs/images/', import.meta.url));
const largest = 200_000;

const server = await preview({ preview: { host: '127.0.0.1', port: 0 }, logLevel: 'error' });
const address = server.resolvedUrls?.local[0];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-lcd-text', '--disable-background-networking'],
});
mkdirSync(folder, { recursive: true });

async function open(options) {
  const page = await browser.newPage({ reducedMotion: 'reduce', ...options });
  await page.goto(address);
  await page.getByRole('button', { name: 'Open the sample' }).click();
  await page.locator('.verdict.is-ok').waitFor();
  return page;
}

async function take(page, name) {
  // Waits for the last bytes and cells.
  await page.locator('.bytes-view .is-unread').first().waitFor({ state: 'detached' });
  await page.waitForTimeout(300);
  const path = `${folder}${name}.png`;
  const png = await page.screenshot();
  if (png.length > largest) throw new Error(`${path}: the screenshot has ${png.length} bytes; the limit is ${largest}`);
  writeFileSync(path, png);
  process.stdout.write(`${path}: ${png.length} bytes\n`);
  await page.close();
}

const summary = await open({ viewport: { width: 1000, height: 860 }, colorScheme: 'light' });
await take(summary, 'demo-summary');

const bytes = await open({ viewport: { width: 1184, height: 660 }, colorScheme: 'light' });
await bytes.locator('[data-test=search]').fill('fa fc 31 c0');
await bytes.locator('.search select').first().selectOption('hex');
await bytes.locator('[data-test=search]').press('Enter');
await bytes.locator('[data-test=matches] button').first().click();
await bytes.locator('[data-test=device-search]').fill('rtc');
await bytes.locator('[data-test=device-matches] button').nth(1).click();
await bytes.locator('[role=treeitem][aria-selected=true]').waitFor();
await bytes.evaluate("document.querySelector('#sections').scrollIntoView()");
await take(bytes, 'demo-devices');

const diff = await open({ viewport: { width: 1184, height: 610 }, colorScheme: 'dark' });
await diff.getByRole('button', { name: 'Compare with the earlier sample' }).click();
await diff.locator('[data-test=diff]').waitFor();
await diff.locator('.device-changes summary').nth(1).click();
await diff.evaluate("document.querySelector('#map').scrollIntoView()");
await take(diff, 'demo-diff');

const phone = await open({ viewport: { width: 375, height: 800 }, colorScheme: 'light', deviceScaleFactor: 1 });
await phone.evaluate("document.querySelector('#map').scrollIntoView()");
await take(phone, 'demo-phone');

await browser.close();
await server.close();
