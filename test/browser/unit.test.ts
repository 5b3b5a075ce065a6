/**
 * Runs the unit tests of kernels and formats in a real Chromium, with vitest's runner and matchers. Tests that need modules of
 * Node (fixtures on disk, Node's codecs) cannot run there. This file lists those of portable code, so that none is lost unnoticed.
 */
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hangGuardMs } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { type PageServer, servePage } from './server.ts';
import { bundleUnitTests, portable } from './unit/bundle.ts';
import type { Told } from './unit/page.ts';

const executablePath = findChromium();
const { scripts, runs, needNode } = await bundleUnitTests();
const html =
  '<!doctype html><meta charset="utf-8"><title>unit tests</title><script type="module" src="/unit/test/browser/unit/page.js"></script>';

/** Tests of portable code that read fixtures or sources from disk. */
const leftOut = [
  'test/kernel/table.test.ts',
  'test/kernel/xbzrle-encode.test.ts',
  'test/vm/auto-closed.test.ts',
  'test/vm/migration-error.test.ts',
];

describe.skipIf(executablePath === undefined)('in Chromium', () => {
  let server: PageServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    // Some tests are about shared memory.
    server = await servePage(new Map(), scripts, { html, isolated: true });
    browser = await chromium.launch({ executablePath: executablePath as string, args: launchFlags });
    page = await browser.newPage();
    page.setDefaultTimeout(hangGuardMs);
    await page.goto(server.origin);
    await page.waitForFunction('globalThis.runUnitTests !== undefined');
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  it.each(runs)('$file passes', async ({ path }) => {
    const told = (await page.evaluate(`globalThis.runUnitTests(${JSON.stringify(path)})`)) as Told[];
    const failed = told.filter(({ state }) => state !== 'pass');
    expect(failed, JSON.stringify(failed, null, 2)).toEqual([]);
    expect(told.length).toBeGreaterThan(0);
  });

  it('of kernels, formats and the VM only what reads from disk is left out', () => {
    const files = [...needNode.keys()].filter((file) => portable.includes(file.split('/')[1] as string));
    expect(files.sort()).toEqual(leftOut);
    for (const [file, modules] of needNode)
      expect(modules, file).toEqual(expect.arrayContaining([expect.stringMatching(/^node:(fs|crypto|zlib)$/)]));
  });
});
