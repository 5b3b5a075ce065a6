/**
 * Migrations in several files on the page, in a real Chromium. The page combines them by their bytes, or asks the user.
 */
import { basename } from 'node:path';
import type { Locator, Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { fixturePath, loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';
import {
  earlier,
  executablePath,
  openFiles,
  overflowOf,
  part,
  press,
  sample,
  seriousIn,
  serveDemo,
} from './demo-page.ts';

const fixtureNamed = (name: string) => loadPartedFixtures().find((each) => each.name === name) as PartedFixture;

/** The report of the command line on it, with findings in the same order. */
async function verifyByCli({ path, paths: { resumeOf, preempt, returnPath } }: PartedFixture) {
  const options = [
    ...resumeOf.flatMap((each) => ['--resume-of', each]),
    ...preempt.flatMap((each) => ['--preempt', each]),
    ...returnPath.flatMap((each) => ['--return-path', each]),
  ];
  const { stdout, code } = await runCli(['verify', path, ...options]);
  return { code, findings: stdout.split('\n').filter((line) => /^(error|warning|info) /.test(line)) };
}

describe.skipIf(executablePath === undefined)('migrations in several files, in Chromium', () => {
  const demo = serveDemo();

  async function expectVerdict(page: Page, fixture: PartedFixture): Promise<void> {
    const { code, findings } = await verifyByCli(fixture);
    expect(code).toBe(0);
    await page.locator('.verdict.is-ok').waitFor();
    const shown = await part(page, 'findings').locator('li').allTextContents();
    expect(shown.length).toBe(findings.length);
    for (const [i, finding] of findings.entries()) {
      // The command line names sources by their paths.
      const [said] = finding.replaceAll(fixturePath(''), '').split(/ \((?:in |at 0x)/);
      expect(shown[i]).toContain(said);
    }
  }

  const row = (page: Page, path: string): Locator =>
    part(page, 'parts')
      .getByRole('listitem')
      .filter({ hasText: basename(path) });

  it('opens a recovery with the stream that broke off and its return paths, like the command line', async () => {
    const page = await demo.show(demo.plain);
    const fixture = fixtureNamed('pc-recovery-10.0');
    const { path, paths } = fixture;
    await openFiles(page, ...paths.returnPath, path, ...paths.resumeOf);
    await expectVerdict(page, fixture);
    const facts = await part(page, 'facts').textContent();
    expect(facts).toContain('Recovery ofpc-recovery-10.0.broken-1.bin');
    expect(facts).toContain('pc-recovery-10.0.return-2.bin: 3 RECV_BITMAP');
    // The device is in the stream that broke off, and so are its bytes.
    const device = page.locator('[role=treeitem]').filter({ hasText: 'timer#0' });
    await device.locator('.offset').click();
    await expect.poll(() => part(page, 'bytes-where').textContent()).toContain('pc-recovery-10.0.broken-1.bin');
  });

  it('opens a stream with its preempt channel', async () => {
    const page = await demo.show(demo.plain);
    const fixture = fixtureNamed('pc-preempt-10.0');
    await openFiles(page, ...fixture.paths.preempt, fixture.path);
    await expectVerdict(page, { ...fixture, paths: { ...fixture.paths, returnPath: [] } });
    await expect.poll(() => part(page, 'facts').textContent()).toContain('Preemptpc-preempt-10.0.preempt-1.bin');
  });

  it('asks for the order of two preempt channels, and opens them in the chosen order', async () => {
    const page = await demo.show(demo.plain);
    const fixture = fixtureNamed('pc-recovery-7.2');
    const { path, paths } = fixture;
    const [first, second] = paths.preempt as [string, string];
    await part(page, 'files').setInputFiles([second, path, first, ...paths.resumeOf]);
    await part(page, 'parts').waitFor();
    await expect.poll(() => part(page, 'parts').textContent()).toContain('order of the connections');
    const order = () => part(page, 'parts').locator('.file-name').allTextContents();
    const inOrder = await order();
    expect(inOrder.indexOf(basename(first))).toBeLessThan(inOrder.indexOf(basename(second)));
    await row(page, first).getByRole('button', { name: /later/ }).click();
    expect((await order()).indexOf(basename(first))).toBeGreaterThan((await order()).indexOf(basename(second)));
    await row(page, first)
      .getByRole('button', { name: /earlier/ })
      .click();
    await press(page, 'Open these together');
    await expectVerdict(page, { ...fixture, paths: { ...paths, returnPath: [] } });
  });

  it('asks which of two streams is meant, and opens no other', async () => {
    const page = await demo.show(demo.plain);
    await part(page, 'files').setInputFiles([sample, earlier]);
    await part(page, 'parts').waitFor();
    const open = page.getByRole('button', { name: 'Open these together' });
    await row(page, sample).getByRole('combobox').selectOption('stream');
    await expect.poll(() => open.isDisabled()).toBe(true);
    await row(page, earlier).getByRole('combobox').selectOption('none');
    await open.click();
    await page.locator('.verdict.is-ok').waitFor();
    await expect.poll(() => page.locator('h2').textContent()).toBe(basename(sample));
  });

  it.each([1280, 375])('asks in a form that fits and can be used, at %i px', async (width) => {
    const page = await demo.show(demo.plain, { viewport: { width, height: 740 }, colorScheme: 'dark' });
    const { path, paths } = fixtureNamed('pc-recovery-7.2');
    await part(page, 'files').setInputFiles([path, ...paths.preempt, ...paths.resumeOf, ...paths.returnPath]);
    await part(page, 'parts').waitFor();
    expect(await seriousIn(page)).toEqual([]);
    expect(await overflowOf(page)).toBeLessThanOrEqual(0);
    await page.getByRole('button', { name: 'Open these together' }).focus();
    await page.keyboard.press('Enter');
    await page.locator('.verdict.is-ok').waitFor();
  });

  it('asks in the same way about the machine to compare with', async () => {
    const page = await demo.show(demo.plain);
    await openFiles(page, sample);
    const { path, paths } = fixtureNamed('pc-recovery-7.2');
    await part(page, 'earlier').setInputFiles([path, ...paths.preempt, ...paths.resumeOf]);
    await part(page, 'parts').waitFor();
    await press(page, 'Open these together');
    await part(page, 'diff').waitFor();
    await expect.poll(() => part(page, 'diff').textContent()).toContain('machine: pc-i440fx-7.2 → pc-i440fx-10.0');
  });

  it('writes nothing to the console', () => {
    expect(demo.complaints).toEqual([]);
  });
});
