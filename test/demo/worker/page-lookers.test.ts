import { expect, it } from 'vitest';
import { entropyBytes } from '../../../src/demo/worker/entropy-bytes.ts';
import { type LookRequest, makeLookers } from '../../../src/demo/worker/page-lookers.ts';

/** A helper in this thread; it fails at the second request if it is told to, and answers none from then on. */
class Helper extends EventTarget {
  readonly #fails: boolean;
  #requests = 0;

  constructor(fails: boolean) {
    super();
    this.#fails = fails;
  }

  postMessage({ memory, offset, length, pageSize }: LookRequest, [port]: [MessagePort]): void {
    this.#requests++;
    if (!this.#fails) port.postMessage(entropyBytes(new Uint8Array(memory, offset, length), pageSize));
    else if (this.#requests === 2) this.dispatchEvent(Object.assign(new Event('error'), { message: 'no memory' }));
  }
}

const lookersOf = (helper: Helper) => makeLookers(1, () => helper as unknown as Worker);

it('a helper says of pages what is said without one', async () => {
  for (const lookers of [lookersOf(new Helper(false)), makeLookers(0, () => new Worker(''))]) {
    const window = await lookers.take();
    window.bytes.fill(7, 0, 4096);
    for (let i = 4096; i < 8192; i++) window.bytes[i] = i;
    const values = await window.measure(8192, 4096);
    expect(Array.from(values)).toEqual(Array.from(entropyBytes(window.bytes.subarray(0, 8192), 4096)));
    expect(values[0]).toBeLessThan(values[1] as number);
  }
});

it('all that a helper was asked fails with it', async () => {
  const lookers = lookersOf(new Helper(true));
  const windows = [await lookers.take(), await lookers.take()];
  const outcomes = await Promise.allSettled(windows.map((window) => window.measure(4096, 4096)));
  for (const outcome of outcomes) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: new Error('a helper failed: no memory') });
  }
});
