/**
 * A worker of bench/workers.ts: an instance of the shared build over the one memory, with its own tables and output.
 * Waits for a round to begin, processes its pages the given number of times, and reports that it is done.
 */
import { readFileSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import type { KernelExports } from '../src/kernel/exports.ts';

const { memory, control, index, tables, out, count, pageSize, first, bitmap, words, wasm } = workerData as {
  memory: WebAssembly.Memory;
  /** Round, rounds done by worker 0 and 1, times, workers taking part. */
  control: Int32Array;
  index: number;
  tables: [olds: number, news: number, results: number];
  out: number;
  count: number;
  pageSize: number;
  first: number;
  bitmap: number;
  words: number;
  wasm: string;
};
const instance = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(wasm)), { env: { memory } });
const kernels = instance.exports as unknown as KernelExports;
const [olds, news, results] = tables;

const done = 1 + index;
Atomics.store(control, done, 0);
for (let round = 0; ; ) {
  Atomics.wait(control, 0, round);
  round = Atomics.load(control, 0);
  const times = Atomics.load(control, 3);
  if (times === 0) break;
  if (index < Atomics.load(control, 4)) {
    for (let i = 0; i < times; i++) {
      kernels.zeroScan(first, pageSize, count, bitmap);
      kernels.xbzrleEncodeBatch(olds, news, count, pageSize, pageSize, out, results);
      kernels.hashPages(first, pageSize, count, words);
    }
  }
  Atomics.store(control, done, round);
  Atomics.notify(control, done);
}
