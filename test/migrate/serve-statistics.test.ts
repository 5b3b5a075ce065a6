/** The statistics of a page server: latencies in buckets, shares, and the expected end. */
import { describe, expect, it } from 'vitest';
import { ServeMeter } from '../../src/migrate/serve-statistics.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { ManualClock } from '../support/manual-clock.ts';

const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 1000 * 4096, pageSize: 4096 };

function makeMeter() {
  const clock = new ManualClock();
  const state = { sent: 0 };
  return { clock, state, meter: new ServeMeter({ sentPages: () => state.sent, pageSize: 4096, clock }) };
}

describe('the statistics of a page server', () => {
  it('know nothing before anything has happened', () => {
    const { meter } = makeMeter();
    expect(meter.now()).toEqual({
      ...{ faults: 0, sentBytes: 0, requestedBytes: 0 },
      latency: { p50: 0, p99: 0, max: 0, histogram: [] },
      ...{ remainingBytes: undefined, resident: undefined, expectedEndMs: undefined },
    });
  });

  it('put latencies into buckets, whose ends the quantiles are', async () => {
    const { meter, clock } = makeMeter();
    for (let i = 0; i < 98; i++) meter.served({ block, first: i, end: i + 1, at: clock.now() });
    const at = clock.now();
    await clock.advance(3);
    meter.served({ block, first: 98, end: 99, at });
    await clock.advance(497);
    meter.served({ block, first: 99, end: 100, at });
    const { latency } = meter.now();
    expect(latency.histogram.map(({ count }) => count)).toEqual([98, 1, 1]);
    expect(latency.histogram[0]?.below).toBe(0.01);
    expect(latency.histogram[1]?.below).toBeGreaterThan(3);
    expect(latency.histogram[1]?.below).toBeLessThan(3 * Math.SQRT2);
    expect(latency).toMatchObject({ p50: 0.01, p99: latency.histogram[1]?.below, max: 500 });
  });

  it('keep the order of requests, each page once', () => {
    const { meter } = makeMeter();
    for (const first of [5, 3, 5, 9]) meter.asked({ block, first, end: first + 1 });
    expect(meter.recorded.map(({ first }) => first)).toEqual([5, 3, 9]);
    expect(meter.now()).toMatchObject({ faults: 4, requestedBytes: 4 * 4096 });
  });

  it('expect the end by what was sent since the guest runs', async () => {
    const { meter, clock, state } = makeMeter();
    meter.begin();
    meter.dataPages = 400;
    await clock.advance(1000);
    state.sent = 100;
    expect(meter.now()).toMatchObject({ resident: 0.25, remainingBytes: 300 * 4096, expectedEndMs: 3000 });
  });
});
