/**
 * The page when something goes wrong: files of other kinds, files that disappear or contain too much, and browsers that
 * lack a feature.
 */
import { copyFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import {
  blockList,
  EOF,
  EOS,
  end,
  full,
  join as joinBytes,
  none,
  start,
  u32,
  vmdescription,
  zeroPage,
} from '../oracle/build.ts';
import { runCli } from '../run-cli.ts';
import {
  executablePath,
  openFiles,
  openSample,
  overflowOf,
  part,
  press,
  sample,
  seriousIn,
  serveDemo,
} from './demo-page.ts';

const [manyBlocks, manyDevices] = [3000, 2500];

/**
 * A stream with thousands of blocks that have the longest names, and with devices that have one field with a long name
 * each.
 */
function makeMany(): Uint8Array {
  const nameOf = (i: number) => `block-${i}/<b>&"'\n${'x'.repeat(255)}`.slice(0, 255);
  const names = Array.from({ length: manyBlocks }, (_, i) => nameOf(i));
  const numbers = Array.from({ length: manyDevices }, (_, i) => i);
  const fields = [{ name: 'field'.repeat(100), type: 'uint32', size: 4 }];
  return joinBytes(
    none,
    start(7, 'ram', 4, blockList(...names.map((name) => [name, 4096] as [string, number])), EOS),
    end(7, ...names.map((name) => zeroPage(0, name)), EOS),
    ...numbers.map((i) => full(10 + i, `device-${i}`, u32(i))),
    EOF,
    vmdescription({
      page_size: 4096,
      devices: numbers.map((i) => ({
        name: `device-${i}`,
        instance_id: 0,
        vmsd_name: `device-${i}`,
        version: 1,
        fields,
      })),
    }),
  );
}

describe.skipIf(executablePath === undefined)('the page when something goes wrong, in Chromium', () => {
  const demo = serveDemo();
  /** The page's error message, once there is one. */
  const failure = async (page: Page) => (await part(page, 'failure').first().textContent()) ?? '';

  it('shows the beginning of a long list, and more on a click', async () => {
    const path = join(demo.scratch, 'many.bin');
    writeFileSync(path, makeMany());
    expect((await runCli(['verify', path])).code).toBe(0);
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
    const blocks = part(page, 'blocks').locator('tbody tr');
    await expect.poll(() => blocks.count()).toBe(100);
    await page.locator('#summary').getByRole('button', { name: 'Show more (2,900 not listed)' }).click();
    await expect.poll(() => blocks.count()).toBe(1000);
    const devices = page.locator('[role=treeitem]');
    await expect.poll(() => devices.count()).toBe(1000);
    await expect.poll(() => page.locator('#devices').textContent()).toContain('2,500 devices');
    await page.locator('#devices').getByRole('button', { name: 'Show more (1,500 not listed)' }).click();
    await expect.poll(() => devices.count()).toBe(2000);
    await part(page, 'device-search').fill('device-2499#');
    await part(page, 'device-matches').getByRole('button').click();
    await expect
      .poll(() => page.locator('[role=treeitem][aria-selected=true]').textContent())
      .toContain('device-2499#0');
    await part(page, 'export').locator('summary').click();
    for (const width of [1280, 375]) {
      await page.setViewportSize({ width, height: 740 });
      expect(await overflowOf(page)).toBeLessThanOrEqual(0);
    }
  });

  it('saves a block whose name is impossible as a file name', async () => {
    const path = join(demo.scratch, 'odd.bin');
    const name = `../a:b*c?"<d>|\n${'x'.repeat(200)}`;
    writeFileSync(
      path,
      joinBytes(none, start(7, 'ram', 4, blockList([name, 4096]), EOS), end(7, zeroPage(0, name), EOS), EOF),
    );
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await part(page, 'export').locator('summary').click();
    const begun = page.waitForEvent('download');
    await part(page, 'export')
      .getByRole('button', { name: /^Block/ })
      .click();
    expect((await begun).suggestedFilename()).toMatch(/^odd\..{0,3}_a_b_c___d___x{60,}\.raw$/);
  });

  it.each([0, 1, 7])('reports the same about a file of %i bytes as the command line', async (length) => {
    const path = join(demo.scratch, `tiny-${length}`);
    writeFileSync(path, none.subarray(0, length));
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    const [, said] = (await runCli(['verify', path])).stdout.match(/^error truncated: (.*)$/m) ?? [];
    await expect.poll(() => failure(page)).toContain(`error truncated: ${said}`);
  });

  const losses = [
    ['vanished', (path: string) => rmSync(path)],
    ['shrank', (path: string) => truncateSync(path, 1000)],
  ] as const;
  it.each(losses)('says what to do when a file %s after it was opened', async (name, lose) => {
    const path = join(demo.scratch, name);
    copyFileSync(sample, path);
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
    lose(path);
    await part(page, 'bytes-of').selectOption('file');
    await part(page, 'failure').first().waitFor();
    await expect.poll(() => failure(page)).toContain('choose it again');
    expect(await seriousIn(page)).toEqual([]);
  });

  it('recognizes a folder', async () => {
    const folder = join(demo.scratch, 'a folder');
    mkdirSync(folder);
    const page = await demo.show(demo.plain);
    const session = await page.context().newCDPSession(page);
    const drop = async () => {
      for (const type of ['dragEnter', 'dragOver', 'drop'] as const) {
        const data = { items: [], files: [folder], dragOperationsMask: 1 };
        await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
      }
      await part(page, 'failure').waitFor();
    };
    await drop();
    await part(page, 'failure').getByRole('button', { name: 'Choose its files' }).waitFor();
    await expect.poll(() => failure(page)).toContain('a folder is a folder: drop the files in it instead');
  });

  it.each(['q35-smp-10.0.bin', 'none-aarch64-10.0.bin'])(
    'compares with another machine like the command line: %s',
    async (other) => {
      const page = await demo.show(demo.plain);
      await openFiles(page, sample);
      await part(page, 'earlier').setInputFiles(fixturePath(other));
      await part(page, 'diff').waitFor();
      const shown = (await part(page, 'diff').textContent()) ?? '';
      const { stdout } = await runCli(['diff', fixturePath(other), sample]);
      const lines = stdout.split('\n').map((line) => line.trim());
      const isSaid = (line: string) => /^(machine|page size|only in [AB]|\S+: .* → .* compared$)/.test(line);
      expect(lines.filter(isSaid).length).toBeGreaterThan(2);
      for (const line of lines.filter(isSaid)) {
        const [, side, name] = /^only in ([AB]): ([^,]+)/.exec(line) ?? [];
        if (name === undefined) expect(shown).toContain(line);
        else
          expect(shown).toMatch(
            new RegExp(`Only in ${side === 'A' ? 'the earlier' : 'this'} file: .*${escaped(name)}`),
          );
      }
      expect(await overflowOf(page)).toBeLessThanOrEqual(0);
    },
  );

  it('finds a field in a description of several megabytes', async () => {
    const fields = Array.from({ length: 40_000 }, (_, i) => ({
      name: `${'f'.repeat(200)}${i}`,
      type: 'uint8',
      size: 1,
    }));
    const device = { name: 'wide', instance_id: 0, vmsd_name: 'wide', version: 1, fields };
    const body = new Uint8Array(fields.length).fill(1);
    const json = vmdescription({ page_size: 4096, devices: [device] });
    expect(json.length).toBeGreaterThan(8 << 20);
    const path = join(demo.scratch, 'wide.bin');
    writeFileSync(path, joinBytes(none, full(10, 'wide', body), EOF, json));
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
    await page.locator('[role=treeitem]').first().click();
    await expect.poll(() => page.locator('[role=treeitem]').count()).toBe(1001);
    await part(page, 'device-search').fill('39999');
    await part(page, 'device-matches').getByRole('button').click();
    const found = page.locator('[role=treeitem][aria-selected=true]').filter({ hasText: '39999' });
    await found.waitFor();
    // Only some of the rows exist in the document, but keys reach all of them.
    expect(await page.locator('[role=treeitem]').count()).toBeLessThanOrEqual(2000);
    const focused = 'document.activeElement.textContent';
    await found.focus();
    await page.keyboard.press('Home');
    await expect.poll(() => page.evaluate(focused)).toContain('wide#0');
    await page.keyboard.press('End');
    await expect.poll(() => page.evaluate(focused)).toContain('39999');
  });

  it('opens a file that is dropped while another is being opened', async () => {
    const page = await demo.show(demo.plain);
    await page.getByLabel('URL').fill('files/never');
    await press(page, 'Open');
    await page.getByRole('progressbar').waitFor();
    await page.evaluate(`(() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File(['no migration stream'], 'not-one'));
      document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, dataTransfer: transfer }));
    })()`);
    await part(page, 'failure').waitFor();
    await expect.poll(() => page.locator('main h2').textContent()).toBe('Could not open not-one');
    await press(page, 'Open another file');
    await openSample(page);
    await expect.poll(() => page.locator('main h2').textContent()).toBe('pc-xbzrle-10.0.bin');
  });

  const browsers = [
    ['no workers', { before: 'delete globalThis.Worker' }, 'could not be started'],
    ['workers that are not modules', { before: asClassicWorkers() }, 'could not be started'],
    ['no WebAssembly', { inWorker: 'delete globalThis.WebAssembly' }, 'this browser has no WebAssembly'],
  ] as const;
  it.each(browsers)('reports what is missing: %s', async (_, options, said) => {
    const page = await demo.show(demo.plain, { ...options, mayComplain: true });
    await part(page, 'failure').waitFor();
    await expect.poll(() => failure(page)).toContain(said);
    await expect.poll(() => failure(page)).toContain('Use a current Chromium, Firefox or Safari');
  });

  it('works without a private disk, and says so', async () => {
    const page = await demo.show(demo.plain, { inWorker: 'delete StorageManager.prototype.getDirectory' });
    await openSample(page);
    await expect.poll(() => part(page, 'means').textContent()).toContain('memory, at most 128 MiB');
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});

const escaped = (text: string) => text.replace(/[.#$()*+?[\]\\^{|}]/g, '\\$&');

/** Simulates browsers without module workers, which ignore the option. */
function asClassicWorkers(): string {
  return `{
    const { Worker } = globalThis;
    globalThis.Worker = class extends Worker {
      constructor(url) {
        super(url);
      }
    };
  }`;
}
