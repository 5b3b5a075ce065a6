/** Compares two workers on one shared memory with one worker: scan, encode and hash, each on its own pages. */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type Row, rowOf } from './measure.ts';
import { changeMixed, PAGE, seeded } from './patterns.ts';

const COUNT = 128;
const SLACK = 65536;

export async function measureWorkers(rounds: number): Promise<Row> {
  const memory = new WebAssembly.Memory({ initial: 256, maximum: 65536, shared: true });
  const bytes = new Uint8Array(memory.buffer);
  const words = new Uint32Array(memory.buffer);
  const control = new Int32Array(new SharedArrayBuffer(32)).fill(-1, 1, 3);
  const wasm = fileURLToPath(new URL('./kernel.shared.wasm', import.meta.url));

  // After the module's own bytes; each worker has 4 MiB.
  const workers = [0, 1].map((index) => {
    const base = (1 + index * 4) << 20;
    const [old, first, out] = [base, base + COUNT * PAGE, base + 2 * COUNT * PAGE];
    const olds = out + COUNT * PAGE + SLACK;
    const [news, results, hashes, bitmap] = [1, 2, 3, 4].map((n) => olds + n * COUNT * 4) as [
      number,
      number,
      number,
      number,
    ];
    const random = seeded(99);
    for (let i = 0; i < COUNT; i++) {
      const page = new Uint8Array(PAGE);
      if (i % 4 !== 0) for (let at = 0; at < PAGE; at++) page[at] = random(256);
      bytes.set(page, old + i * PAGE);
      changeMixed(page, i, random);
      bytes.set(page, first + i * PAGE);
      words[olds / 4 + i] = old + i * PAGE;
      words[news / 4 + i] = first + i * PAGE;
    }
    const tables = [olds, news, results];
    const workerData = {
      memory,
      control,
      index,
      tables,
      out,
      count: COUNT,
      pageSize: PAGE,
      first,
      bitmap,
      words: hashes,
      wasm,
    };
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    worker.on('error', (error) => {
      console.error(error);
      process.exit(1);
    });
    return worker;
  });

  const waitFor = (worker: number, value: number) => {
    for (;;) {
      const now = Atomics.load(control, 1 + worker);
      if (now === value) return;
      Atomics.wait(control, 1 + worker, now, 1000);
    }
  };
  let round = 0;
  /** Bytes per nanosecond with `taking` workers. */
  const run = (taking: number, times: number): number => {
    Atomics.store(control, 3, times);
    Atomics.store(control, 4, taking);
    const start = process.hrtime.bigint();
    Atomics.store(control, 0, ++round);
    Atomics.notify(control, 0);
    for (let worker = 0; worker < 2; worker++) waitFor(worker, round);
    return (taking * times * COUNT * PAGE) / Number(process.hrtime.bigint() - start);
  };
  while (control[1] !== 0 || control[2] !== 0) await new Promise((resolve) => setTimeout(resolve, 5));
  for (let i = 0; i < 4; i++) run(2, 50);
  const [one, two]: [number[], number[]] = [[], []];
  for (let i = 0; i < rounds; i++) {
    if (i % 2 === 0) one.push(run(1, 100));
    two.push(run(2, 100));
    if (i % 2 === 1) one.push(run(1, 100));
  }
  Atomics.store(control, 3, 0);
  Atomics.store(control, 0, ++round);
  Atomics.notify(control, 0);
  for (const worker of workers) void worker.terminate();
  return rowOf('two workers, shared memory / one worker', two, one);
}
