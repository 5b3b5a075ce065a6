/** The built kernels are reentrant: instances side by side, and workers with all pages in one shared memory. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { loadPageKernels } from '../../src/index.ts';

const kernelModule = new URL('../../dist/kernel.js', import.meta.url).href;
const pageSize = 4096;
const rounds = 400;

/** Changes, encodes, decodes and hashes two pages of the worker's own in turns. Runs here and in workers. */
function work(kernels: Awaited<ReturnType<typeof loadPageKernels>>, pages: Uint8Array, seed: number) {
  const old = pages.subarray(0, pageSize);
  const next = pages.subarray(pageSize, 2 * pageSize);
  const out = new Uint8Array(pageSize);
  const hashes = new Uint32Array(1);
  const results: unknown[] = [];
  for (let round = 0; round < rounds; round++) {
    next.set(old);
    for (let at = round % 61; at < pageSize; at += seed + (round % 97)) next[at] = (next[at] ?? 0) ^ 0x5a;
    const length = kernels.encodePage(old, next, out);
    results.push(length, length > 0 ? kernels.decodePage(out.subarray(0, length), old) : 0);
    kernels.hashPages(old, hashes);
    results.push(hashes[0]);
  }
  return results;
}

const script = `
import { workerData, parentPort } from 'node:worker_threads';
import { loadPageKernels } from ${JSON.stringify(kernelModule)};
const pageSize = ${pageSize}, rounds = ${rounds};
const { buffer, offset, seed } = workerData;
const kernels = await loadPageKernels();
parentPort.postMessage((${work.toString()})(kernels, new Uint8Array(buffer, offset), seed));`;

/** The result of `work` when nothing else runs. */
const alone = async (seed: number) => work(await loadPageKernels(), new Uint8Array(2 * pageSize), seed);

describe('the built kernels', () => {
  it('work in four workers at once, on pages in one shared memory', async () => {
    const buffer = new SharedArrayBuffer(8 * pageSize);
    const seeds = [3, 17, 40, 111];
    const found = await Promise.all(
      seeds.map((seed, i) => {
        const workerData = { buffer, offset: i * 2 * pageSize, seed };
        const url = new URL(`data:text/javascript,${encodeURIComponent(script)}`);
        const worker = new Worker(url, { workerData });
        return new Promise<unknown>((resolve, reject) => worker.once('message', resolve).once('error', reject));
      }),
    );
    const expected = await Promise.all(seeds.map(alone));
    expect(found).toEqual(expected);
    expect(new Set(expected.flat()).size).toBeGreaterThan(1000);
  });

  it('do not interfere when two instances are used in turns', async () => {
    const [a, b] = [await loadPageKernels(), await loadPageKernels()];
    // Half of each page differs, so that both deltas fit.
    const old = new Uint8Array(pageSize).map((_, i) => (i & 64 ? i & 0xff : 0));
    const out = new Uint8Array(pageSize);
    const other = new Uint8Array(pageSize);
    const zeros = new Uint8Array(pageSize);
    const delta = a.encodePage(zeros, old, out);
    expect(b.encodePage(old, zeros, other)).toBeGreaterThan(0);
    expect(a.decodePage(out.subarray(0, delta), zeros)).toBeGreaterThan(0);
    expect(zeros).toEqual(old);
  });
});
