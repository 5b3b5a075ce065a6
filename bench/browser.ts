/**
 * `npm run bench:browser`: compares the kernels in Chromium with the same in Node, and what the page's engine does with
 * a 1 GiB stream with reading the same File by `slice` alone. Takes turns; prints a table; `-- --json FILE` also writes
 * its rows. Reports results and has no pass or fail.
 */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { appendTo } from '../src/io/byte-source.ts';
import { OutputFile } from '../src/io/node/output-file.ts';
import { writeStream } from '../src/write/write-stream.ts';
import { findChromium, launchFlags } from '../test/browser/chromium.ts';
import { servePage } from '../test/browser/server.ts';
import { configuration, SparseRam } from '../test/browser/viewer-files.ts';
import type { BrowserBench } from './browser-page.ts';
import { measureKernels, type Speeds } from './kernel-speeds.ts';
import { type Row, rowOf } from './measure.ts';
import { printTable } from './table.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    mib: { type: 'string', default: '1140' },
    dir: { type: 'string', default: tmpdir() },
  },
});
const rounds = Number(values.rounds);
const root = fileURLToPath(new URL('../../', import.meta.url));
const html =
  '<!doctype html><title>bench</title><input type="file"><script type="module" src="/browser-page.js"></script>';

const executablePath = findChromium();
if (executablePath === undefined) throw new Error('expected a Chromium');
const directory = mkdtempSync(join(values.dir, 'vmferry-bench-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** Nine of ten pages hold data, and no two are alike. */
const path = join(directory, 'guest.migration');
const pages = Number(values.mib) * 256;
const output = new OutputFile(path);
await writeStream({ configuration, ram: new SparseRam(pages, (page) => page % 10 !== 0) }, appendTo(output.file));
await output.commit();
const { size } = statSync(path);

const server = await servePage(new Map(), await bundle(), { html, isolated: true });
const browser = await chromium.launchPersistentContext(join(directory, 'profile'), {
  executablePath,
  args: launchFlags,
});
const page = await browser.newPage();
await page.goto(server.origin);
await page.waitForFunction('globalThis.bench !== undefined');
await page.setInputFiles('input', path);
const ask = <Name extends keyof BrowserBench>(name: Name) =>
  page.evaluate(`globalThis.bench.${name}()`) as Promise<Awaited<ReturnType<BrowserBench[Name]>>>;

/** Speeds of both, round by round. */
const kernels: { there: Speeds[]; here: Speeds[] } = { there: [], here: [] };
const opening: { slice: number[]; open: number[]; entropy: number[] } = { slice: [], open: [], entropy: [] };
let about = '';
// The first round warms up.
for (let round = -1; round < rounds; round++) {
  const there = await ask('kernels');
  const here = await measureKernels();
  const slice = await ask('slice');
  const opened = await ask('open');
  if (round < 0) {
    about = `${opened.kernel}, ${opened.helpers} helpers, scratch on ${opened.scratch}`;
    continue;
  }
  kernels.there.push(there);
  kernels.here.push(here);
  const speed = (ms: number) => size / ms / 1e6;
  opening.slice.push(speed(slice));
  opening.open.push(speed(opened.opening));
  opening.entropy.push(speed(opened.entropy));
}
const version = browser.browser()?.version() ?? '';
await browser.close();
await server.close();

const of = (list: Speeds[], name: string) => list.map((speeds) => speeds[name] as number);
const kernelRows = Object.keys(kernels.there[0] ?? {}).map((name) =>
  rowOf(`${name} in Chromium / Node`, of(kernels.there, name), of(kernels.here, name)),
);
const openRows = [
  rowOf('open a stream / read it by slice', opening.open, opening.slice),
  rowOf('measure the entropy of its pages / read it by slice', opening.entropy, opening.slice),
];
console.log(`Chromium ${version}, Node ${process.version}; ${about}. Speeds in GB/s, medians of ${rounds} rounds.`);
printTable('Kernels, a mix of pages', kernelRows);
printTable(`A stream of ${Math.round(size / 2 ** 20)} MiB`, openRows);
const all: Row[] = [...kernelRows, ...openRows];
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);

/** Scripts by their paths on the server. */
async function bundle(): Promise<Map<string, string>> {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [
      'bench/browser-page.ts',
      'bench/slice-worker.ts',
      'src/demo/worker/worker.ts',
      'src/demo/worker/page-helper.ts',
    ],
    entryNames: '[name]',
    outdir: '/',
    write: false,
    bundle: true,
    splitting: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    alias: { 'stream/web': join(root, 'scripts/stream-web.mjs') },
    loader: { '.wasm': 'binary' },
    logLevel: 'error',
  });
  const scripts = new Map(outputFiles.map((file) => [file.path, file.text]));
  // Under its name in the source.
  return scripts.set('/page-helper.ts', scripts.get('/page-helper.js') as string);
}
