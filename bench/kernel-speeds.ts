/** Kernel speeds on the current platform: the same jobs run in Node and in a page. */
import { loadKernel } from '../src/kernel/index.ts';
import { Batch } from './batch.ts';
import { changeMixed, PAGE } from './patterns.ts';

const pages = 128;
/** How long each job runs. */
const roundMs = 20;

/** GB/s of pages for each kernel job, by name. */
export type Speeds = Record<string, number>;

let made: Promise<Batch> | undefined;

async function makeBatch(): Promise<Batch> {
  const batch = new Batch(await loadKernel({ arenaBytes: 8 << 20 }), pages);
  batch.fill(
    (page, index, random) => changeMixed(page, index, random),
    (index) => index % 4 === 0,
  );
  batch.encode();
  return batch;
}

export async function measureKernels(): Promise<Speeds> {
  made ??= makeBatch();
  const batch = await made;
  const { kernel, count } = batch;
  const jobs: Record<string, () => void> = {
    'zero scan': () => kernel.zeroScan(batch.next, PAGE, count, batch.bitmap),
    compare: () => kernel.comparePages(batch.old, batch.next, PAGE, count, batch.bitmap),
    'XBZRLE encode': () =>
      kernel.xbzrleEncodeBatch(batch.olds, batch.news, count, PAGE, PAGE, batch.out, batch.results),
    'XBZRLE check': () => kernel.xbzrleCheckBatch(batch.sources, batch.lengths, count, PAGE, batch.results),
    XXH64: () => kernel.hashPages(batch.next, PAGE, count, batch.words),
  };
  return Object.fromEntries(Object.entries(jobs).map(([name, job]) => [name, batch.bytes / time(job) / 1e6]));
}

/** Milliseconds that a job takes. */
function time(job: () => void): number {
  let times = 0;
  const start = performance.now();
  let taken = 0;
  // Clocks in pages are coarse, so the whole round is timed.
  while (taken < roundMs) {
    for (let i = 0; i < 8; i++) job();
    times += 8;
    taken = performance.now() - start;
  }
  return taken / times;
}
