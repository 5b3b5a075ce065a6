/**
 * The unit tests of kernels and formats, in a real Chromium: vitest's runner and matchers run them in the page. Those that
 * need Node's modules (fixtures on disk, Node's codecs) are left out, and named here, so that none is left out unseen.
 */
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hangGuardMs } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { type PageServer, servePage } from './server.ts';
import { bundleUnitTests } from './unit/bundle.ts';
import type { Told } from './unit/page.ts';

const executablePath = findChromium();
const { scripts, runs, needNode } = await bundleUnitTests();
const html =
  '<!doctype html><meta charset="utf-8"><title>unit tests</title><script type="module" src="/unit/test/browser/unit/page.js"></script>';

/** Of the rooms whose code needs no Node, what reads fixtures or sources from disk. */
const leftOut = [
  'test/kernel/table.test.ts',
  'test/kernel/xbzrle-encode.test.ts',
  'test/read/container/libvirt-header.test.ts',
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
    const outside = [...needNode.keys()].filter((file) => !file.startsWith('test/file/'));
    expect(outside).toEqual(leftOut);
    for (const [file, modules] of needNode)
      expect(modules, file).toEqual(expect.arrayContaining([expect.stringMatching(/^node:(fs|crypto|zlib)$/)]));
  });
});
