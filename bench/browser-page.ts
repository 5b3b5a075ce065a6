/** What `bench/browser.ts` runs in the page: the kernels, and opening the file that was picked. */
import { connect } from '../src/demo/rpc.ts';
import { measureKernels } from './kernel-speeds.ts';

const viewer = connect(new Worker('/worker.js', { type: 'module' }));
const slicer = new Worker('/slice-worker.js', { type: 'module' });

const picked = (): File => {
  const file = document.querySelector<HTMLInputElement>('input')?.files?.[0];
  if (file === undefined) throw new Error('expected a picked file');
  return file;
};

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

const bench = {
  kernels: measureKernels,

  /** Milliseconds to read the file with nothing but `slice`, in a worker. */
  slice: () =>
    timed(
      () =>
        new Promise((resolve) => {
          slicer.onmessage = resolve;
          slicer.postMessage(picked());
        }),
    ),

  /** Milliseconds to open the file, and to measure all its pages. */
  async open() {
    let id = 0;
    const opening = await timed(async () => {
      ({ id } = await viewer.open({ files: [picked()] }));
    });
    // The content is read first, in a pass of its own.
    await viewer.read({ file: id, block: 0, offset: 0, length: 16 });
    const entropy = await timed(() => viewer.prepare({ file: id, block: 0, layer: 'entropy' }));
    await viewer.close(id);
    return { opening, entropy, ...(await viewer.about()) };
  },
};

export type BrowserBench = typeof bench;

Object.assign(globalThis, { bench });
