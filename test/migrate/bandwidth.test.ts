import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Bandwidth } from '../../src/migrate/bandwidth.ts';
import { ManualClock } from '../support/manual-clock.ts';

/** Takes `total` bytes in pieces, and returns when each of them was given. */
async function takeAll(bandwidth: Bandwidth, clock: ManualClock, total: number, piece: number) {
  const taken: { at: number; bytes: number }[] = [];
  for (let left = total; left > 0; ) {
    const bytes = await bandwidth.take(Math.min(piece, left));
    taken.push({ at: clock.now(), bytes });
    left -= bytes;
  }
  return taken;
}

/** Moves the clock on until the work is done. */
async function driven<Result>(clock: ManualClock, work: Promise<Result>): Promise<Result> {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  while (!isDone) await clock.advance(20);
  return done;
}

const sumUntil = (taken: { at: number; bytes: number }[], at: number) =>
  taken.reduce((sum, each) => sum + (each.at < at ? each.bytes : 0), 0);

describe('Bandwidth', () => {
  it('gives a tenth of the rate per window of 100 ms, in five steps', async () => {
    const clock = new ManualClock();
    const taken = await driven(clock, takeAll(new Bandwidth(1000_000, clock), clock, 300_000, 1 << 20));
    expect(taken.map(({ at, bytes }) => [at, bytes])).toEqual(Array.from({ length: 15 }, (_, i) => [20 * i, 20_000]));
  });

  it('keeps to the rate within one step at any moment, for any rate and any pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 10, max: 1e9 }),
        fc.integer({ min: 1, max: 2 << 20 }),
        fc.integer({ min: 1, max: 40 }),
        async (rate, piece, steps) => {
          const clock = new ManualClock();
          const budget = Math.floor(rate / 10);
          const total = Math.max(1, Math.floor((budget * steps) / 5));
          const taking = takeAll(new Bandwidth(rate, clock), clock, total, Math.max(piece, total >> 8));
          const taken = await driven(clock, taking);
          for (const { at } of taken)
            expect(sumUntil(taken, at + 1)).toBeLessThanOrEqual((budget * (at + 20)) / 100 + 1);
          expect(taken.at(-1)?.at).toBeGreaterThanOrEqual(((total - 1) * 100) / budget - 20);
          expect(taken.at(-1)?.at).toBeLessThanOrEqual((total * 100) / budget);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('gives what a slow line did not take later, up to one window', async () => {
    const clock = new ManualClock();
    const bandwidth = new Bandwidth(1000_000, clock);
    expect(await bandwidth.take(1)).toBe(1);
    await clock.advance(60);
    expect(await bandwidth.take(1 << 20)).toBe(79_999);
    await clock.advance(10_000);
    expect(await bandwidth.take(1 << 20)).toBe(100_000);
  });

  it('is one limit for all who take', async () => {
    const clock = new ManualClock();
    const bandwidth = new Bandwidth(1000_000, clock);
    const takers = [7000, 9000].map((piece) => takeAll(bandwidth, clock, 50_000, piece));
    const taken = (await driven(clock, Promise.all(takers))).flat();
    expect(taken.reduce((last, { at }) => Math.max(last, at), 0)).toBe(80);
  });

  it('has no limit with 0, and with less than 10 as in QEMU', async () => {
    const clock = new ManualClock();
    for (const rate of [0, 9]) expect(await new Bandwidth(rate, clock).take(1e9)).toBe(1e9);
  });

  it('ends a wait when a signal is aborted', async () => {
    const clock = new ManualClock();
    const bandwidth = new Bandwidth(100, clock);
    await bandwidth.take(2);
    const cancel = new AbortController();
    const waiting = bandwidth.take(1, cancel.signal);
    cancel.abort(new Error('cancelled'));
    await expect(waiting).rejects.toThrow('cancelled');
  });
});
