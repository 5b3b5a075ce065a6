/** The kernels in a real Chromium: the seeded cases of test/kernel, and workers without shared state. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { build } from 'tsup';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadPageKernels } from '../../src/index.ts';
import { hangGuardMs } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { type PageServer, servePage } from './server.ts';

const executablePath = findChromium();
const cases = 3000;

/** Encodes and hashes its own pages with the built package. The same text runs in Node and in workers. */
const workerScript = `
import { loadPageKernels } from '/dist/kernel.js';
onmessage = async ({ data: { seed, rounds } }) => {
  const kernels = await loadPageKernels();
  postMessage((${work.toString()})(kernels, seed, rounds));
};`;

function work(kernels: Awaited<ReturnType<typeof loadPageKernels>>, seed: number, rounds: number): (number | string)[] {
  const old = new Uint8Array(4096).map((_, i) => (i * seed) >> 3);
  const out = new Uint8Array(4096);
  const hashes = new Uint32Array(1);
  const results: (number | string)[] = [];
  for (let round = 0; round < rounds; round++) {
    const next = old.slice();
    for (let at = round % 64; at < 4096; at += seed + round) next[at] = (next[at] ?? 0) ^ 0x55;
    const length = kernels.encodePage(old, next, out);
    results.push(length);
    if (length > 0) results.push(kernels.decodePage(out.subarray(0, length), old));
    kernels.hashPages(old, hashes);
    results.push(hashes[0] ?? 0);
  }
  return results;
}

describe.skipIf(executablePath === undefined)('the kernels in Chromium', () => {
  let directory: string;
  let server: PageServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'vmferry-browser-'));
    await build({
      config: false,
      entry: { cases: fileURLToPath(new URL('./kernel-cases.ts', import.meta.url)) },
      outDir: directory,
      format: 'esm',
      platform: 'browser',
      target: 'es2022',
      loader: { '.wasm': 'binary' },
      silent: true,
    });
    const scripts = new Map([
      ['/cases.js', readFileSync(join(directory, 'cases.js'), 'utf8')],
      ['/worker.js', workerScript],
    ]);
    server = await servePage(new Map(), scripts);
    browser = await chromium.launch({ executablePath: executablePath as string, args: launchFlags });
    page = await browser.newPage();
    page.setDefaultTimeout(hangGuardMs);
    await page.goto(server.origin);
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it(`agree with the oracle in ${cases} seeded cases, in both builds`, async () => {
    const checked = await page.evaluate(`import('/cases.js').then(({ checkCases }) => checkCases(${cases}))`);
    expect(checked).toEqual({ cases, variants: ['simd', 'scalar'] });
  });

  it('work in two workers at once like in Node', async () => {
    const jobs = [
      { seed: 11, rounds: 2000 },
      { seed: 29, rounds: 2000 },
    ];
    const expected = await Promise.all(
      jobs.map(async ({ seed, rounds }) => work(await loadPageKernels(), seed, rounds)),
    );
    const found =
      await page.evaluate(`Promise.all(${JSON.stringify(jobs)}.map((job) => new Promise((resolve, reject) => {
      const worker = new Worker('/worker.js', { type: 'module' });
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage(job);
    })))`);
    expect(found).toEqual(expected);
    expect(new Set(expected[0]).size).toBeGreaterThan(1000);
  });
});
