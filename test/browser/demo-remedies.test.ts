/** What the page says to do about a failure, and that its buttons do it, in a real Chromium. */
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';
import { drop, executablePath, openFiles, part, press, sample, seriousIn, serveDemo } from './demo-page.ts';

describe.skipIf(executablePath === undefined)('the remedies of the page, in Chromium', () => {
  const demo = serveDemo();

  it('adds the channels to a main stream', async () => {
    const page = await demo.show(demo.plain);
    const main = fixturePath('pc-multifd-zlib-7.2');
    await openFiles(page, `${main}.bin`);
    const button = page.locator('#findings').getByRole('button', { name: 'Add its channels' }).first();
    await button.waitFor();
    expect(await seriousIn(page)).toEqual([]);
    await page
      .locator('#findings [data-test=remedy-files]')
      .first()
      .setInputFiles([`${main}.channel-0.bin`, `${main}.channel-1.bin`]);
    await expect.poll(() => part(page, 'facts').textContent()).toContain('pc-multifd-zlib-7.2.channel-1.bin');
    await page.locator('.verdict.is-ok').waitFor();
    expect(await button.count()).toBe(0);
  });

  it('gives the verdict of the command line, and leads from it to the findings', async () => {
    const page = await demo.show(demo.plain, { viewport: { width: 1280, height: 500 } });
    const broken = join(demo.scratch, 'broken-off.bin');
    writeFileSync(broken, readFileSync(sample).subarray(0, 30_000));
    const zero = join(demo.scratch, 'damaged.bin');
    const damaged = Buffer.from(readFileSync(sample));
    // A section type that does not exist.
    damaged[damaged.indexOf('ram') - 6] = 0x77;
    writeFileSync(zero, damaged);
    for (const path of [sample, fixturePath('pc-multifd-zlib-7.2.bin'), broken, zero]) {
      const { stdout, code } = await runCli(['verify', path]);
      const [, expected] = /: (OK|INCOMPLETE|BAD)\b[^\n]*\n$/.exec(stdout) ?? [];
      await openFiles(page, path);
      await expect.poll(() => page.locator('button.verdict').textContent()).toBe(expected);
      expect(await page.locator('.verdict.is-ok').count()).toBe(code === 0 ? 1 : 0);
      await page.locator('button.verdict').click();
      await expect.poll(() => page.evaluate('document.activeElement.id')).toBe('findings');
      await press(page, 'Open another');
    }
  });

  it('adds the main stream to a channel', async () => {
    const page = await demo.show(demo.plain);
    const main = fixturePath('pc-multifd-zlib-7.2');
    await openFiles(page, `${main}.channel-0.bin`);
    await part(page, 'failure').getByRole('button', { name: 'Add its main stream' }).waitFor();
    await part(page, 'remedy-files').setInputFiles([`${main}.bin`, `${main}.channel-1.bin`]);
    await page.locator('.verdict.is-ok').waitFor();
  });

  it.each(['bzip2', 'lzop'])('asks for the decompressed file of %s data: the file did not change', async (format) => {
    const magic = { bzip2: 'BZh91AY&SY', lzop: '\x89LZO\0\r\n\x1a\n' }[format] as string;
    const path = join(demo.scratch, `guest.${format}`);
    writeFileSync(path, Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.alloc(4096, 7)]));
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    const text = await part(page, 'failure').textContent();
    expect(text).toContain(`${format} data cannot be decompressed`);
    expect(text).toContain('The page decompresses gzip, zstd and xz');
    expect(text).not.toContain('changed');
    await part(page, 'failure').getByRole('button', { name: 'Choose the decompressed file' }).waitFor();
    await part(page, 'remedy-files').setInputFiles(sample);
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('opens the sample when its server is back', async () => {
    const page = await demo.show(demo.plain, { mayComplain: true });
    // Its worker has been fetched.
    await part(page, 'means').waitFor();
    await page.context().setOffline(true);
    await press(page, 'Open the sample');
    await part(page, 'failure').waitFor();
    const text = await part(page, 'failure').textContent();
    expect(text).toContain('the sample could not be fetched');
    expect(text).not.toContain('bug');
    await page.context().setOffline(false);
    await press(page, 'Try again');
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('chooses a lost file again', async () => {
    const path = join(demo.scratch, 'lost.bin');
    copyFileSync(sample, path);
    const page = await demo.show(demo.plain);
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
    rmSync(path);
    await part(page, 'bytes-of').selectOption('file');
    await page.locator('#bytes').getByRole('button', { name: 'Choose the file again' }).waitFor();
    copyFileSync(sample, path);
    await page.locator('#bytes [data-test=remedy-files]').setInputFiles(path);
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => part(page, 'failure').count()).toBe(0);
  });

  it('reports a part of the page that cannot be loaded, and loads the page again with the file', async () => {
    const page = await demo.show(demo.plain, { mayComplain: true });
    await openFiles(page, sample);
    await page.locator('.verdict.is-ok').waitFor();
    await page.locator('[role=treeitem]').first().waitFor();
    await page.context().setOffline(true);
    await part(page, 'export').locator('summary').click();
    await part(page, 'export')
      .getByRole('button', { name: /All blocks/ })
      .click();
    await part(page, 'failure').waitFor();
    expect(await part(page, 'failure').textContent()).toContain('The page could not load a part of itself');
    await page.context().setOffline(false);
    await press(page, 'Reload the page');
    await part(page, 'failure').waitFor({ state: 'detached' });
    await page.locator('.verdict.is-ok').waitFor();
    expect(await page.locator('main h2').first().textContent()).toBe('pc-xbzrle-10.0.bin');
  });

  it('compares with the channels that were added to the earlier file', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    const main = fixturePath('pc-multifd-zlib-7.2');
    await part(page, 'earlier').setInputFiles(`${main}.channel-0.bin`);
    await page.locator('#differences').getByRole('button', { name: 'Add its main stream' }).waitFor();
    await page.locator('#differences [data-test=remedy-files]').setInputFiles([`${main}.bin`, `${main}.channel-1.bin`]);
    await part(page, 'diff').waitFor();
  });

  it('refuses what is no URL', async () => {
    const page = await demo.show(demo.plain);
    await page.getByLabel('URL').fill('http://');
    await press(page, 'Open');
    await page.getByText('This is not a URL.').waitFor();
    await drop(page, sample, 'main');
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
