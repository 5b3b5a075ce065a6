/**
 * `npm run bench:opening`: the CPU time of the whole browser while the page opens a stream, next to that of reading the same
 * File alone, in one run and in turns. Prints a table; `-- --json FILE` also writes its rows. Reports results and has no pass
 * or fail. Needs Linux and a built page (`npm run demo:build`).
 */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium, type Page } from 'playwright-core';
import { appendTo } from '../src/io/byte-source.ts';
import { OutputFile } from '../src/io/node/output-file.ts';
import { writeStream } from '../src/write/write-stream.ts';
import { findChromium, launchFlags } from '../test/browser/chromium.ts';
import { serveFolder } from '../test/browser/folder-server.ts';
import { servePage } from '../test/browser/server.ts';
import { configuration, SparseRam } from '../test/browser/viewer-files.ts';
import { cpuOfDescendants } from './process-tree.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    mib: { type: 'string', default: '1536' },
    dir: { type: 'string', default: tmpdir() },
    file: { type: 'string' },
    only: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const MiB = 2 ** 20;

/** Ways to read a File and do nothing with its bytes. The functions run in a worker. */
const ways = {
  'slices of 1 MiB': async (file: File) => {
    for (let at = 0; at < file.size; at += 1 << 20) await file.slice(at, at + (1 << 20)).arrayBuffer();
  },
  'a stream, default reader': async (file: File) => {
    const reader = file.stream().getReader();
    while (!(await reader.read()).done);
  },
  'a byte stream, buffer of 1 MiB': async (file: File) => {
    const reader = file.stream().getReader({ mode: 'byob' });
    for (let view = new Uint8Array(1 << 20); ; ) {
      const { done, value } = await reader.read(view);
      if (done || value === undefined) break;
      view = new Uint8Array(value.buffer);
    }
  },
  'a byte stream, buffer of 8 MiB': async (file: File) => {
    const reader = file.stream().getReader({ mode: 'byob' });
    for (let view = new Uint8Array(8 << 20); ; ) {
      const { done, value } = await reader.read(view);
      if (done || value === undefined) break;
      view = new Uint8Array(value.buffer);
    }
  },
};
const baseline = 'a byte stream, buffer of 8 MiB';

const executablePath = findChromium();
if (executablePath === undefined) throw new Error('expected a Chromium');
const directory = mkdtempSync(join(values.dir, 'vmferry-bench-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** Nine of ten pages hold data, and no two are alike. */
async function writeGuest(): Promise<string> {
  const path = join(directory, 'guest.migration');
  const pages = Math.round((Number(values.mib) * 256) / 0.9);
  const output = new OutputFile(path);
  await writeStream({ configuration, ram: new SparseRam(pages, (page) => page % 10 !== 0) }, appendTo(output.file));
  await output.commit();
  return path;
}

const path = values.file ?? (await writeGuest());
const { size } = statSync(path);
const worker = `const ways = [${Object.values(ways).join(', ')}];
onmessage = async ({ data: [way, file] }) => postMessage(await ways[way](file));`;
const reader = await servePage(new Map(), new Map([['/worker.js', worker]]), {
  html: '<!doctype html><title>bench</title><input type="file">',
});
const demo = await serveFolder(fileURLToPath(new URL('../../dist-demo/', import.meta.url)));
const browser = await chromium.launchPersistentContext(join(directory, 'profile'), {
  executablePath,
  args: launchFlags,
  timeout: 0,
});
browser.setDefaultTimeout(0);

/** Waits until the browser has been idle for a second. */
async function settle(): Promise<void> {
  for (let last = -1; cpuOfDescendants() - last > 0.03; ) {
    last = cpuOfDescendants();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** CPU and clock seconds of some work with a page at an address. */
async function measure(address: string, work: (page: Page) => Promise<unknown>) {
  const page = await browser.newPage();
  await page.goto(address);
  await settle();
  const [cpu, clock] = [cpuOfDescendants(), performance.now()];
  await work(page);
  const seconds = (performance.now() - clock) / 1000;
  await settle();
  const used = cpuOfDescendants() - cpu;
  await page.close();
  return { cpu: used, seconds };
}

const jobs: Record<string, () => ReturnType<typeof measure>> = {
  ...Object.fromEntries(
    Object.keys(ways).map((name, way) => [
      name,
      () =>
        measure(reader.origin, async (page) => {
          await page.setInputFiles('input', path);
          await page.evaluate(
            `new Promise((resolve) => {
               const worker = new Worker('/worker.js');
               worker.onmessage = resolve;
               worker.postMessage([${way}, document.querySelector('input').files[0]]);
             }).then(() => undefined)`,
          );
        }),
    ]),
  ),
  'the page opens it': () =>
    measure(demo.page, async (page) => {
      await page.locator('[data-test=files]').setInputFiles(path);
      await page.locator('[data-test=facts]').waitFor();
    }),
};

const found = new Map<string, { cpu: number; seconds: number }[]>();
for (let round = 0; round < rounds; round++) {
  for (const [name, job] of Object.entries(jobs)) {
    if (values.only !== undefined && !name.includes(values.only)) continue;
    const result = await job();
    found.set(name, [...(found.get(name) ?? []), result]);
  }
}
const version = browser.browser()?.version() ?? '';
await browser.close();
await reader.close();
await demo.close();

const median = (list: number[]) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)] as number;
const rows = [...found].map(([name, results]) => ({
  name,
  cpu: median(results.map(({ cpu }) => cpu)),
  seconds: median(results.map(({ seconds }) => seconds)),
}));
const base = rows.find(({ name }) => name === baseline)?.cpu ?? Number.NaN;
console.log(`Chromium ${version}; a stream of ${Math.round(size / MiB)} MiB; medians of ${rounds} rounds.`);
console.log('CPU seconds of the whole browser, times those of reading alone, and seconds on the clock:');
for (const { name, cpu, seconds } of rows) {
  console.log(
    `${name.padEnd(34)} ${cpu.toFixed(1).padStart(6)} ${(cpu / base).toFixed(2).padStart(6)} ${seconds.toFixed(1).padStart(6)}`,
  );
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
