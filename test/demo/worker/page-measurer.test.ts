import { expect, it } from 'vitest';
import { entropyBytes } from '../../../src/demo/worker/entropy-bytes.ts';
import { type MeasureRequest, makeMeasurer } from '../../../src/demo/worker/page-measurer.ts';

/** A helper in this thread. If requested, it fails at the second request and answers none after it. */
class Helper extends EventTarget {
  readonly #fails: boolean;
  #requests = 0;

  constructor(fails: boolean) {
    super();
    this.#fails = fails;
  }

  postMessage({ memory, offset, length, pageSize }: MeasureRequest, [port]: [MessagePort]): void {
    this.#requests++;
    if (!this.#fails) port.postMessage(entropyBytes(new Uint8Array(memory, offset, length), pageSize));
    else if (this.#requests === 2) this.dispatchEvent(Object.assign(new Event('error'), { message: 'no memory' }));
  }
}

const measurerOf = (helper: Helper) => makeMeasurer(1, () => helper as unknown as Worker);

it('a helper gives the same results as no helper', async () => {
  for (const measurer of [measurerOf(new Helper(false)), makeMeasurer(0, () => new Worker(''))]) {
    const window = await measurer.take();
    window.bytes.fill(7, 0, 4096);
    for (let i = 4096; i < 8192; i++) window.bytes[i] = i;
    const values = await window.measure(8192, 4096);
    expect(Array.from(values)).toEqual(Array.from(entropyBytes(window.bytes.subarray(0, 8192), 4096)));
    expect(values[0]).toBeLessThan(values[1] as number);
  }
});

it('all requests to a helper fail with it', async () => {
  const measurer = measurerOf(new Helper(true));
  const windows = [await measurer.take(), await measurer.take()];
  const outcomes = await Promise.allSettled(windows.map((window) => window.measure(4096, 4096)));
  for (const outcome of outcomes) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: new Error('a helper worker failed: no memory') });
  }
});
