import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Dirtying, dirtyingAt } from '../../../src/tasks/estimate/dirtying.ts';
import { type PrecopyOptions, simulatePrecopy } from '../../../src/tasks/estimate/precopy-model.ts';

const MiB = 1 << 20;
const pagesOf = (mebibytes: number) => mebibytes * 256;
const idle: Dirtying = { name: 'given', workingSet: 0, dirtied: () => 0 };
/** Writes to all of its pages all the time. */
const busy = (pages: number): Dirtying => ({
  ...{ name: 'given', workingSet: pages },
  dirtied: (seconds) => (seconds > 0 ? pages : 0),
});
/** Writes page after page, in a circle. */
const sweep = (pages: number, perSecond: number): Dirtying => ({
  ...{ name: 'given', workingSet: pages },
  dirtied: (seconds) => Math.min(pages, seconds * perSecond),
});
/** 128 MiB and its ROMs, with 8,524 zero pages, as in the observed guests. */
const guest = { pageSize: 4096, dataPages: pagesOf(95) + 1000, zeroPages: 8524 };
const run = (dirtying: Dirtying, options: Partial<PrecopyOptions> = {}, memory = guest) =>
  simulatePrecopy(memory, dirtying, { bandwidth: 20 * MiB, downtimeLimit: 300, ...options });

// Facts: QEMU 10.0, observed (docs/estimate.md, "The migration").
describe('a window', () => {
  it('of 20 MiB/s has 512 pages of 4,104 bytes and a frame of 18: 2,101,266 bytes', () => {
    // Nothing is below a threshold before the second window: one pass of 5 windows and a remainder.
    const memory = { pageSize: 4096, dataPages: 512 * 5 + 100, zeroPages: 0 };
    const { bytes, totalMs, syncs } = run(idle, { downtimeLimit: 1 }, memory);
    expect(bytes).toBe(5 * 2_101_266 + 18 + 100 * 4104);
    expect(totalMs).toBe(500 + Math.round(((100 * 4104 + 18) / (20 * MiB)) * 1000));
    expect(syncs).toBe(3);
  });

  it('sets a threshold of 6,303,798 bytes for 300 ms: 1,539 pages are below, 1,540 not', () => {
    const windows = 3;
    const left = (pages: number) => ({ pageSize: 4096, dataPages: windows * 512 + pages, zeroPages: 0 });
    expect(Math.floor(6_303_798 / 4096)).toBe(1539);
    expect(run(idle, {}, left(1539)).totalMs).toBe(windows * 100 + Math.round((1539 * 4104) / (20 * 1048.576)));
    // With one page more, another window is sent first, which leaves 512 pages fewer.
    expect(run(idle, {}, left(1540)).totalMs).toBe((windows + 1) * 100 + Math.round((1028 * 4104) / (20 * 1048.576)));
  });
});

describe('a migration', () => {
  it('of an idle guest that fits into one window completes with pass 2', () => {
    const { converges, syncs, downtimeMs, bytes } = run(idle, { bandwidth: 2 ** 40 });
    expect({ converges, syncs, downtimeMs }).toEqual({ converges: true, syncs: 2, downtimeMs: 0 });
    expect(bytes).toBe(guest.dataPages * 4104 + guest.zeroPages * 9 + 18);
  });

  it('of a guest that writes faster than pages are sent does not converge', () => {
    const { converges, dirtyBytesPerSecond, sentBytesPerSecond } = run(busy(pagesOf(95)));
    expect(converges).toBe(false);
    expect(dirtyBytesPerSecond).toBeGreaterThan(19 * MiB);
    expect(sentBytesPerSecond / MiB).toBeCloseTo(20, 0);
  });

  it('converges as soon as all written pages fit into the downtime', () => {
    // 95 MiB at 20 MiB/s take at least 4,760 ms.
    expect(run(busy(pagesOf(95)), { downtimeLimit: 4700 }).converges).toBe(false);
    const { converges, downtimeMs } = run(busy(pagesOf(95)), { downtimeLimit: 4800 });
    expect(converges).toBe(true);
    expect(downtimeMs).toBeGreaterThan(4700);
    expect(downtimeMs).toBeLessThanOrEqual(4800);
  });

  it('of a guest that writes slowly has passes that become shorter', () => {
    const { converges, passes } = run(sweep(pagesOf(95), pagesOf(10)), { downtimeLimit: 20 });
    expect(converges).toBe(true);
    expect(passes.length).toBeGreaterThan(3);
    // Each pass leaves what was written during it: half as much, because the guest is half as fast as the wire.
    for (const [i, { pages }] of passes.slice(1, 4).entries())
      expect(pages / passes[i]!.pages).toBeCloseTo(i === 0 ? 0.37 : 0.5, 1);
  });

  it("is throttled like QEMU's: 20 % after two syncs, 30 % after four", () => {
    // Observed: syncs at 4.8, 9.6, 14.3, 18.9, 23.5 s; 20 % at 9.6 s, 30 % at 18.9 s.
    const { passes, converges, throttle } = run(busy(pagesOf(95)), { autoConverge: true });
    const observed = [4800, 9600, 14_300, 18_900, 23_500];
    for (const [i, at] of observed.entries()) expect(Math.abs(passes[i + 1]!.atMs - at) / at).toBeLessThan(0.06);
    // Even so it writes all of it.
    expect(converges).toBe(false);
    expect(throttle).toBe(99);
  });

  it('of a guest that is slightly too fast converges when it is throttled', () => {
    const fast = sweep(pagesOf(95), pagesOf(25));
    expect(run(fast).converges).toBe(false);
    const slowed = run(fast, { autoConverge: true });
    expect(slowed.converges).toBe(true);
    expect(slowed.throttle).toBeGreaterThanOrEqual(20);
  });

  it('with XBZRLE sends pages whole the second time, and as deltas afterwards', () => {
    const xbzrle = { meanBytes: 50, overflowShare: 0, cachedShare: 1 };
    const plain = run(sweep(pagesOf(95), pagesOf(25)));
    const { converges, bytes } = run(sweep(pagesOf(95), pagesOf(25)), { xbzrle });
    expect(plain.converges).toBe(false);
    expect(converges).toBe(true);
    // All of it at least once, and most of it twice.
    expect(bytes).toBeGreaterThan(1.5 * 95 * MiB);
    expect(run(sweep(pagesOf(95), pagesOf(25)), { xbzrle: { ...xbzrle, overflowShare: 1 } }).converges).toBe(false);
  });

  it('with compression is as fast as the wire times the ratio, or as the engines', () => {
    const wire = run(idle, { compression: { ratio: 4, bytesPerSecond: 2 ** 40 } });
    const engine = run(idle, { compression: { ratio: 4, bytesPerSecond: 40 * MiB } });
    expect(wire.totalMs / run(idle).totalMs).toBeCloseTo(1 / 4, 1);
    expect(engine.totalMs / run(idle).totalMs).toBeCloseTo(1 / 2, 1);
    expect(engine.bytes / wire.bytes).toBeCloseTo(1, 2);
  });

  it('always ends, sends all pages at least once, and converges sooner with more bandwidth', () => {
    fc.assert(
      fc.property(
        fc.record({ pageSize: fc.constantFrom(4096, 8192), dataPages: fc.nat(100_000), zeroPages: fc.nat(10_000) }),
        fc.integer({ min: 1, max: 500 }),
        fc.double({ min: 0, max: 50_000, noNaN: true }),
        fc.nat(50_000),
        fc.integer({ min: 1, max: 5000 }),
        (memory, mebibytes, perSecond, set, downtimeLimit) => {
          const dirtying = dirtyingAt(perSecond, set, memory.dataPages + memory.zeroPages);
          const at = (factor: number) =>
            simulatePrecopy(memory, dirtying, { bandwidth: mebibytes * MiB * factor, downtimeLimit });
          const [slow, fast] = [at(1), at(4)];
          if (slow.converges) {
            expect(fast.converges).toBe(true);
            expect(slow.bytes).toBeGreaterThanOrEqual(memory.dataPages * memory.pageSize);
            expect(slow.downtimeMs).toBeLessThanOrEqual(downtimeLimit * 1.1 + 1);
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});
