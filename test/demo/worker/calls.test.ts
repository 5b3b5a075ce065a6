import { expect, it } from 'vitest';
import { type CallContext, SharedWork } from '../../../src/demo/worker/calls.ts';

function call(): CallContext & { abort(): void; told: number } {
  const controller = new AbortController();
  const context = {
    signal: controller.signal,
    told: 0,
    progress: () => {
      context.told++;
    },
    part: () => {},
    abort: () => controller.abort(),
  };
  return context;
}

/** Work that ends when it is aborted. */
function work() {
  let begun = 0;
  let ended = 0;
  let finish: (value: number) => void = () => {};
  let fail: (error: Error) => void = () => {};
  const shared = new SharedWork<number>(({ signal, progress }) => {
    begun++;
    progress({ doing: 'working', done: 0, total: 1 });
    signal.addEventListener('abort', () => {
      ended++;
      fail(new Error('ended'));
    });
    return new Promise((resolve, reject) => {
      finish = resolve;
      fail = reject;
    });
  });
  const counts = () => ({ begun, ended });
  return { shared, counts, finish: (value: number) => finish(value), fail: (error: Error) => fail(error) };
}

it('runs once for all callers', async () => {
  const { shared, counts, finish } = work();
  const both = [shared.get(call()), shared.get(call())];
  finish(7);
  expect(await Promise.all(both)).toEqual([7, 7]);
  expect(await shared.get(call())).toBe(7);
  expect(counts()).toEqual({ begun: 1, ended: 0 });
});

it('continues while a caller still waits, and ends with the last one', async () => {
  const { shared, counts } = work();
  const [one, two] = [call(), call()];
  const waiting = [shared.get(one), shared.get(two)].map((each) => each.catch(() => 'cancelled'));
  one.abort();
  expect(await waiting[0]).toBe('cancelled');
  expect(counts().ended).toBe(0);
  two.abort();
  expect(await waiting[1]).toBe('cancelled');
  expect(counts()).toEqual({ begun: 1, ended: 1 });
});

it('starts again after a failure', async () => {
  const { shared, counts, fail, finish } = work();
  const first = shared.get(call());
  fail(new Error('no'));
  await expect(first).rejects.toThrow('no');
  const second = shared.get(call());
  finish(1);
  expect(await second).toBe(1);
  expect(counts().begun).toBe(2);
});
