/** The page that shows a saved machine, built and served as a static folder, in a real Chromium. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';
import {
  drop,
  earlier,
  executablePath,
  folder,
  openFiles,
  openSample,
  overflowOf,
  part,
  press,
  sample,
  saved,
  seriousIn,
  serveDemo,
} from './demo-page.ts';
import { serveFolder } from './folder-server.ts';
import { writeSparse } from './viewer-files.ts';

/** The most JavaScript and WebAssembly (embedded in the JavaScript) that the page may load, compressed. */
const sizeBudget = 300_000;

describe.skipIf(executablePath === undefined)('the page, in Chromium', () => {
  const demo = serveDemo();
  const { complaints, strangers, show } = demo;
  /** Origins that a test requests on purpose. The requests may appear long after that test. */
  const askedOnPurpose: string[] = [];

  /** The visible lines of bytes that have been read. */
  async function bytesInSight(page: Page): Promise<string[]> {
    await page.locator('.bytes-view .line').first().waitFor();
    await page.locator('.bytes-view .is-unread').first().waitFor({ state: 'detached' });
    return page.locator('.bytes-view .line').allTextContents();
  }

  /** The output of `vmferry read`, without squashed lines and without the address at the end. */
  async function dump(path: string, block: string, at: number): Promise<string[]> {
    const { stdout } = await runCli(['read', path, '--block', block, '--at', String(at), '--length', '128']);
    return stdout.split('\n').filter((line) => line.includes('|'));
  }

  async function expectBytes(page: Page, path: string, block: string, at: number): Promise<void> {
    const expected = await dump(path, block, at);
    await expect.poll(async () => (await bytesInSight(page)).join('\n')).toContain(expected[0]);
    const shown = await bytesInSight(page);
    for (const line of expected) expect(shown).toContain(line);
  }

  it('is ready at once, and opens the sample on a click', async () => {
    const page = await show(demo.plain);
    await page.getByRole('button', { name: 'Open the sample' }).waitFor();
    const ready = await page.evaluate("performance.getEntriesByName('vmferry-ready')[0].startTime");
    console.log(`the page was interactive ${Math.round(ready as number)} ms after it was asked for`);
    await openSample(page);
    const facts = await part(page, 'facts').textContent();
    expect(facts).toContain('pc-i440fx-10.0');
    expect(facts).toContain('2.19 MiB in 3 blocks, pages of 4 KiB, 6 passes');
    await expect
      .poll(() => part(page, 'blocks').locator('tbody tr').first().textContent())
      .toContain('pc.ram2 MiB47125160');
    await expectBytes(page, sample, 'pc.ram', 0x8000);
  });

  it('loads less than 300 kB of JavaScript and WebAssembly', async () => {
    const before = demo.plain.requests.length;
    const page = await show(demo.plain);
    await openSample(page);
    const loaded = new Set(demo.plain.requests.slice(before).map(({ path }) => path.split('/').at(-1) as string));
    const sizeOf = (name: string) => gzipSync(readFileSync(join(folder, 'assets', name)), { level: 9 }).length;
    const scripts = readdirSync(join(folder, 'assets')).filter((name) => /\.(js|wasm)$/.test(name));
    const sum = (names: string[]) => names.reduce((total, name) => total + sizeOf(name), 0);
    const first = sum(scripts.filter((name) => loaded.has(name)));
    const all = sum(scripts);
    console.log(`scripts, compressed: ${first} bytes for the sample, ${all} if every codec is needed`);
    expect(all).toBeLessThan(sizeBudget);
  });

  it.each(['without', 'with'])('reads, searches, compares and converts %s cross-origin isolation', async (how) => {
    const page = await show(how === 'with' ? demo.isolated : demo.plain);
    expect(await page.evaluate('crossOriginIsolated')).toBe(how === 'with');
    const means = how === 'with' ? /\d helper workers? with shared memory/ : /no shared memory/;
    await expect.poll(() => part(page, 'means').textContent()).toMatch(means);
    await openFiles(page, sample);

    const bytes = 'fa fc 31 c0';
    await page.locator('.search select').first().selectOption('hex');
    await part(page, 'search').fill(bytes);
    await part(page, 'search').press('Enter');
    const { stdout } = await runCli(['search', sample, '--hex', bytes]);
    const match = part(page, 'matches').getByRole('button').first();
    const [block, offset] = ((await match.textContent()) ?? '').split(' ');
    expect(stdout).toContain(`${block}`);
    expect(Number(offset)).toBe(0x8000);
    await match.click();
    expect((await page.locator('mark.marked').allTextContents()).join(' ')).toContain('fa fc 31 c0');

    await part(page, 'map-layer').selectOption('entropy');
    await expect.poll(() => part(page, 'cursor').textContent()).toMatch(/page 8 .* [1-7]\.\d\d bits per byte/);
    await part(page, 'device-search').fill('base_rtc');
    await part(page, 'device-matches').getByRole('button', { name: 'base_rtc' }).click();
    const chosen = page.locator('[role=treeitem][aria-selected=true]');
    await expect.poll(() => chosen.textContent()).toContain('1795404179');

    await part(page, 'earlier').setInputFiles(earlier);
    const diff = part(page, 'diff');
    await diff.waitFor();
    await expect.poll(() => diff.locator('.verdict').textContent()).toBe('different');
    await expect.poll(() => diff.locator('tbody tr').first().textContent()).toBe('pc.ram512488240000');
    await page.locator('mark.differs').first().waitFor();

    for (const [button, form] of [
      ['Machine as a mapped-ram file', 'mapped-ram file'],
      ['Machine as a stream', 'stream'],
    ] as const) {
      const path = await saved(demo.scratch, page, button);
      expect((await runCli(['verify', path])).stdout).toContain(`OK (${form} of pc-i440fx-10.0`);
      expect((await runCli(['diff', sample, path])).code).toBe(0);
    }
  });

  it('goes to a page on the map with the keyboard alone, and shows its bytes', async () => {
    const page = await show(demo.plain);
    await page.keyboard.press('Tab');
    for (let i = 0; i < 12; i++) {
      if ((await page.evaluate('document.activeElement.textContent')) === 'Open the sample') break;
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    await page.locator('.verdict.is-ok').waitFor();
    const isOnMap = 'document.activeElement.dataset.test === "map"';
    for (let i = 0; i < 40 && !(await page.evaluate(isOnMap)); i++) await page.keyboard.press('Tab');
    expect(await page.evaluate(isOnMap)).toBe(true);

    const map = part(page, 'map');
    const cursor = part(page, 'cursor');
    await expect.poll(() => cursor.textContent()).toContain('page 8 at 0x8000, data');
    const far = Number(await map.getAttribute('data-pages-per-row'));
    for (let i = 0; i < 8; i++) await page.keyboard.press('+');
    const near = Number(await map.getAttribute('data-pages-per-row'));
    expect(near).toBeLessThan(far);
    expect(near).toBe(8);

    await page.keyboard.press('Home');
    for (let row = 0; row < 32; row++) await page.keyboard.press('ArrowDown');
    for (let i = 0; i < 4; i++) await page.keyboard.press('ArrowRight');
    await expect.poll(() => cursor.textContent()).toContain('page 260 at 0x104000, XBZRLE');
    await expect.poll(() => part(page, 'announcement').textContent()).toContain('page 260 at 0x104000, XBZRLE');
    await page.keyboard.press('Enter');
    await expectBytes(page, sample, 'pc.ram', 0x104000);
  });

  it('goes to a page on a click, and zooms with the wheel', async () => {
    const page = await show(demo.plain);
    await openSample(page);
    const map = part(page, 'map');
    const far = Number(await map.getAttribute('data-pages-per-row'));
    const box = await map.boundingBox();
    if (box === null) throw new Error('there is no map');
    // The last cell, which is the last page.
    const at = { x: box.width - 8, y: box.height - 8 };
    await map.click({ position: at });
    await expect.poll(() => part(page, 'cursor').textContent()).toContain('page 511 at 0x1ff000, data');
    await expectBytes(page, sample, 'pc.ram', 0x1ff000);
    await page.mouse.move(box.x + at.x, box.y + at.y);
    await page.keyboard.down('Control');
    await page.mouse.wheel(0, -120);
    await page.keyboard.up('Control');
    await expect.poll(async () => Number(await map.getAttribute('data-pages-per-row'))).toBeLessThan(far);
  });

  it('opens a multifd set, a mapped-ram file and a libvirt save', async () => {
    const page = await show(demo.plain);
    const main = fixturePath('pc-multifd-zlib-7.2');
    await openFiles(page, `${main}.channel-1.bin`, `${main}.bin`, `${main}.channel-0.bin`);
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => part(page, 'facts').textContent()).toContain('pc-multifd-zlib-7.2.channel-0.bin');
    await press(page, 'Open another');
    await openFiles(page, fixturePath('containers/libvirt-gzip.bin'));
    await expect.poll(() => part(page, 'facts').textContent()).toContain('libvirt save image');
    await press(page, 'Open another');
    await openFiles(page, fixturePath('pc-mapped-ram-multifd-10.0.bin.gz'));
    await expect.poll(() => part(page, 'facts').textContent()).toContain('mapped-ram');
  });

  it('opens a dropped file, and compares a file that is dropped on the differences', async () => {
    const page = await show(demo.plain);
    await drop(page, sample, 'main');
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => page.locator('h2').first().textContent()).toBe('pc-xbzrle-10.0.bin');
    await drop(page, earlier, '#differences');
    await part(page, 'diff').waitFor();
    await expect.poll(() => part(page, 'diff').locator('.verdict').textContent()).toBe('different');
    // Dropped elsewhere, a file replaces the open one.
    await drop(page, earlier, '#summary, main');
    await expect.poll(() => page.locator('h2').first().textContent()).toBe('pc-plain-10.0.bin');
  });

  it('writes to the chosen place, if the browser asks for one', async () => {
    const page = await show(demo.plain, { saving: 'choose' });
    await openSample(page);
    await part(page, 'export').locator('summary').click();
    await part(page, 'export')
      .getByRole('button', { name: /mapped-ram/ })
      .click();
    await part(page, 'saved').waitFor();
    await expect.poll(() => part(page, 'saved').textContent()).toContain('read back and verified');
    const read = `navigator.storage.getDirectory().then((root) => root.getFileHandle('chosen'))
      .then((handle) => handle.getFile()).then((file) => file.arrayBuffer())
      .then((buffer) => Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join('')).then(btoa)`;
    const path = join(demo.scratch, 'chosen.mapped-ram');
    writeFileSync(path, Buffer.from((await page.evaluate(read)) as string, 'base64'));
    expect((await runCli(['diff', path, sample])).code).toBe(0);
  });

  it('asks for the snapshot of a disk image, and for the offset of a stream that does not begin its file', async () => {
    const page = await show(demo.plain);
    await part(page, 'files').setInputFiles(fixturePath('containers/qcow2-deflate.bin'));
    await press(page, 'packed');
    await part(page, 'facts').waitFor();
    await expect.poll(() => part(page, 'facts').textContent()).toContain('qcow2 snapshot packed');

    await press(page, 'Open another');
    const path = join(demo.scratch, 'inside.img');
    writeFileSync(path, Buffer.concat([Buffer.alloc(8192), readFileSync(sample)]));
    await part(page, 'files').setInputFiles(path);
    await part(page, 'offset').fill('8K');
    await press(page, 'Open there');
    await page.locator('.verdict.is-ok').waitFor();
    await expectBytes(page, sample, 'pc.ram', 0x8000);
  });

  it('reports the same about a truncated file as the command line, and shows the bytes there', async () => {
    const path = join(demo.scratch, 'truncated.bin');
    writeFileSync(path, readFileSync(sample).subarray(0, 30_000));
    const page = await show(demo.plain);
    await openFiles(page, path);
    await page.locator('.verdict.is-incomplete').waitFor();
    const { stdout, code } = await runCli(['verify', path]);
    expect(code).toBe(1);
    const [finding] = stdout.split('\n');
    await expect.poll(() => part(page, 'findings').locator('li p').first().textContent()).toBe(finding);
    await part(page, 'findings').getByRole('button', { name: 'at 0x7530' }).first().click();
    await expect.poll(() => part(page, 'bytes-where').textContent()).toContain('0x7530');
    await expect.poll(() => page.locator('.bytes-view').textContent()).toContain('00007520');
  });

  it('refuses other files with the same code and place, and says what to do', async () => {
    const path = join(demo.scratch, 'photo.jpg');
    writeFileSync(path, 'no migration stream');
    const page = await show(demo.plain);
    await openFiles(page, path);
    const { stderr } = await runCli(['inspect', path]);
    expect(stderr).toContain('not-a-migration-stream');
    const text = await part(page, 'failure').textContent();
    expect(text).toContain('not-a-migration-stream');
    expect(text).toContain('expected a migration stream, got text');
    expect(text).toContain('at 0x0');
    expect(text).toContain('What to do');
  });

  it('opens a URL and fetches only what it needs', async () => {
    const page = await show(demo.plain);
    await page.getByLabel('URL').fill('files/guest.migration');
    await press(page, 'Open');
    await page.locator('.verdict.is-ok').waitFor();
    const asked = demo.plain.requests.filter(({ path }) => path.endsWith('guest.migration'));
    expect(asked.length).toBeGreaterThan(0);
    expect(asked.every(({ range }) => range !== undefined)).toBe(true);
    await expect.poll(() => page.locator('h2').textContent()).toBe('guest.migration');
  });

  it('opens a URL on another server, on the page that may request it', async () => {
    const files = new Map([['other.migration', readFileSync(sample)]]);
    const other = await serveFolder(folder, { files, allowsOthers: true });
    askedOnPurpose.push(new URL(other.page).origin);
    try {
      const page = await show(demo.plain);
      await page.getByLabel('URL').fill(`${other.page}files/other.migration`);
      await press(page, 'Open');
      await part(page, 'elsewhere').getByRole('link').click();
      await page.locator('.verdict.is-ok').waitFor();
      expect(new URL(page.url()).pathname).toBe('/some/where/remote.html');
      await expect.poll(() => page.locator('h2').textContent()).toBe('other.migration');
      expect(other.requests.some(({ range }) => range !== undefined)).toBe(true);
      await expect.poll(() => page.locator('footer').textContent()).toContain('can fetch from other servers');
      // This makes the last of these tests see requests to other servers.
      await expect.poll(() => strangers.some((url) => url.startsWith(other.page))).toBe(true);
    } finally {
      await other.close();
    }
  });

  it('opens a file of 2 GiB, and goes to its last page', async () => {
    const path = join(demo.scratch, 'sparse.mapped-ram');
    await writeSparse(path);
    const page = await show(demo.plain);
    await openFiles(page, path);
    await expect.poll(() => part(page, 'blocks').locator('tbody tr').first().textContent()).toContain('2 GiB524,2853');
    const map = part(page, 'map');
    await map.press('End');
    await expect.poll(() => part(page, 'cursor').textContent()).toContain('page 524,287 at 0x7ffff000, data');
    await map.press('Enter');
    await expectBytes(page, path, 'ram', 0x7ffff000);
    // Work that reads much starts only on request.
    await expect.poll(() => part(page, 'verdict').textContent()).toContain('not verified');
    await press(page, 'Verify the whole file');
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('ends long work on request, and reports what it could not fetch', async () => {
    const page = await show(demo.plain);
    await page.getByLabel('URL').fill('files/never');
    await press(page, 'Open');
    await page.getByRole('progressbar').waitFor();
    await press(page, 'Cancel');
    askedOnPurpose.push('http://elsewhere.invalid');
    await page.getByLabel('URL').fill('http://elsewhere.invalid/guest.migration');
    await press(page, 'Open');
    await part(page, 'failure').waitFor();
    await expect.poll(() => part(page, 'elsewhere').textContent()).toContain('only from the server that it came from');
  });

  it('saves a page, a block and the facts', async () => {
    const page = await show(demo.plain);
    await openSample(page);
    const ofPage = readFileSync(await saved(demo.scratch, page, /^Page 0x8000/));
    const { bytes } = await runCli(['read', sample, '--at', '0x8000', '--length', '4096', '--raw']);
    expect(ofPage.equals(bytes)).toBe(true);
    const ofBlock = readFileSync(await saved(demo.scratch, page, /^Block pc\.ram/));
    expect(ofBlock.length).toBe(2 << 20);
    expect(ofBlock.subarray(0x8000, 0x9000).equals(bytes)).toBe(true);
    const facts = JSON.parse(readFileSync(await saved(demo.scratch, page, /as JSON/), 'utf8'));
    const inspected = JSON.parse((await runCli(['inspect', sample, '--json'])).stdout);
    expect(facts).toMatchObject({ ...inspected, source: 'pc-xbzrle-10.0.bin' });
    expect(facts.verification.ok).toBe(true);
    const picture = readFileSync(await saved(demo.scratch, page, /PNG/));
    expect(picture.subarray(1, 4).toString()).toBe('PNG');
  });

  it('connects to no other server, not even from its workers', async () => {
    const elsewhere = await serveFolder(folder);
    askedOnPurpose.push(new URL(elsewhere.page).origin);
    try {
      const page = await show(demo.plain);
      await openSample(page);
      const attempt = `fetch(${JSON.stringify(elsewhere.page)}, { mode: 'no-cors' }).then(() => 'got out', () => 'blocked')`;
      const outcomes = await Promise.all([
        page.evaluate(attempt),
        ...page.workers().map((worker) => worker.evaluate(attempt)),
      ]);
      expect(outcomes.length).toBeGreaterThan(1);
      expect(new Set(outcomes)).toEqual(new Set(['blocked']));
      expect(elsewhere.requests).toEqual([]);
    } finally {
      await elsewhere.close();
    }
  });

  const looks = [
    { name: 'light', colorScheme: 'light' },
    { name: 'dark', colorScheme: 'dark' },
    { name: 'light, at 375 px', colorScheme: 'light', viewport: { width: 375, height: 740 } },
  ] as const;
  it.each(looks)('has no serious problem that axe finds: $name', async ({ name: _, ...options }) => {
    const page = await show(demo.plain, options);
    expect(await seriousIn(page)).toEqual([]);
    await openSample(page);
    await press(page, 'Compare with the earlier sample');
    await part(page, 'diff').waitFor();
    await part(page, 'device-search').fill('rtc');
    await part(page, 'device-matches').waitFor();
    await part(page, 'export').locator('summary').click();
    expect(await seriousIn(page)).toEqual([]);
    expect(await overflowOf(page)).toBeLessThanOrEqual(0);
  });

  it('requests nothing from other servers and writes nothing to the console', () => {
    const notOnPurpose = (text: string) => !askedOnPurpose.some((origin) => text.includes(origin));
    expect(strangers.filter(notOnPurpose)).toEqual([]);
    expect(complaints.filter(notOnPurpose)).toEqual([]);
  });
});
