/**
 * Zip archives on the page, in a real Chromium: the page opens captures in an archive, and saves several files as one
 * archive.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MemoryFile, openZipMember, readZip } from '../../src/index.ts';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { type MadeMember, makeZip } from '../io/zips.ts';
import { runCli } from '../run-cli.ts';
import {
  drop,
  earlier,
  executablePath,
  openFiles,
  part,
  press,
  sample,
  saved,
  seriousIn,
  serveDemo,
} from './demo-page.ts';

const set = loadFixtures().find(({ name }) => name === 'pc-multifd-zstd-zero-multifd-10.0')!;
const members = (deflate: boolean): MadeMember[] => [
  { name: 'vm/guest', data: set.bytes, deflate },
  ...set.channels.map((data, i) => ({ name: `vm/guest.${i}`, data, deflate })),
];

describe.skipIf(executablePath === undefined)('zip archives, in Chromium', () => {
  const demo = serveDemo();

  const archive = (name: string, of: readonly MadeMember[]) => {
    const path = join(demo.scratch, name);
    writeFileSync(path, makeZip(of));
    return path;
  };

  it.each([false, true])('opens a dropped archive with a multifd set (deflated: %s)', async (deflate) => {
    const page = await demo.show(demo.plain);
    await drop(page, archive('set.zip', members(deflate)), 'main');
    await page.locator('.verdict.is-ok').waitFor();
    expect(await page.locator('h2').first().textContent()).toBe('set.zip#vm/guest');
    const facts = await part(page, 'facts').textContent();
    for (const i of set.channels.keys()) expect(facts).toContain(`set.zip#vm/guest.${i}`);
    await page.locator('.bytes-view .line').first().waitFor();
  });

  it('asks which of several captures in an archive is meant', async () => {
    const page = await demo.show(demo.plain);
    const path = archive('two.zip', [
      { name: 'one', data: readFileSync(earlier), deflate: true },
      { name: 'other', data: readFileSync(sample) },
    ]);
    await part(page, 'files').setInputFiles(path);
    await part(page, 'parts').waitFor();
    expect(await seriousIn(page)).toEqual([]);
    const row = (name: string) =>
      part(page, 'parts')
        .getByRole('listitem')
        .filter({ hasText: `two.zip#${name}` });
    await row('one').getByRole('combobox').selectOption('none');
    await row('other').getByRole('combobox').selectOption('stream');
    await row('other')
      .getByRole('button', { name: /earlier/ })
      .click();
    await press(page, 'Open these together');
    await page.locator('.verdict.is-ok').waitFor();
    expect(await page.locator('h2').first().textContent()).toBe('two.zip#other');
  });

  it('reports a damaged archive', async () => {
    const page = await demo.show(demo.plain);
    const path = archive('bad.zip', [{ name: 'm', data: readFileSync(sample), lies: { crc32: 1 } }]);
    await openFiles(page, path);
    expect(await part(page, 'failure').textContent()).toContain('content with CRC-32');
  });

  it('saves a machine as an archive with a multifd set, which the page and the command line open', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    const path = await saved(demo.scratch, page, /multifd set/);
    expect(basename(path)).toBe('pc-xbzrle-10.0.multifd.zip');
    await part(page, 'saved').waitFor();
    expect(await part(page, 'saved').textContent()).toContain('read back and verified');
    const { code, stdout } = await runCli(['inspect', path]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/multifd +2 channels/);
    expect((await runCli(['diff', path, sample])).code).toBe(0);
    await press(page, 'Open another');
    await openFiles(page, path);
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('saves all blocks as one archive', async () => {
    const { name, truth } = loadFixtures().find((each) => each.name === 'pc-plain-10.0')!;
    const page = await demo.show(demo.plain);
    await openFiles(page, fixturePath(`${name}.bin`));
    const path = await saved(demo.scratch, page, /All blocks/);
    await part(page, 'saved').waitFor();
    const found = await readZip(new MemoryFile('blocks.zip', readFileSync(path)));
    const hashes: string[] = [];
    for (const member of found.members) {
      const bytes = new Uint8Array(member.size);
      expect(await (await openZipMember(found, member)).read(bytes, 0)).toBe(bytes.length);
      hashes.push(createHash('sha256').update(bytes).digest('hex'));
    }
    expect(hashes.sort()).toEqual(truth.map(({ sha256 }) => sha256).sort());
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
