import { describe, expect, it } from 'vitest';
import { nextSleep, ringFullTime } from '../../src/schema/dirty-limit-rules.ts';

describe('the sleep of a vCPU', () => {
  it('is the one that QEMU 10.0 traced', () => {
    const full = ringFullTime(256, 286);
    expect(full).toBe(895_104);
    expect(nextSleep(0, 20, 286, full)).toBe(11_892_096);
  });

  it.each([
    ['stays within 25 MiB/s of the quota', 500, 100, 125, 500],
    ['grows by a tenth of the time of a ring if the rate is a little too high', 500, 100, 150, 600],
    ['shrinks by as much if it is a little too low', 500, 100, 60, 400],
    ['shrinks in proportion if it is far too low', 50_000, 100, 20, 46_000],
    ['is never negative', 50, 100, 60, 0],
    ['is at most 99 times the time of a ring', 98_900, 100, 150, 99_000],
    ['is at most that for any quota', 0, 1, 100_000, 99_000],
    ['is none if nothing is written', 500, 100, 0, 0],
  ])('%s', (_, sleep, quota, rate, expected) => {
    expect(nextSleep(sleep, quota, rate, 1000)).toBe(expected);
  });

  it('knows no time for a ring that nobody fills', () => {
    expect(ringFullTime(16, 0)).toBe(0);
  });
});
