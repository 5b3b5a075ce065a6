/** Limits of vCPUs, in virtual time: of a VM without a dirty ring, as QEMU has it by default, and of one that has a ring. */
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { SyntheticRing } from '../../src/guest/synthetic-ring.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { VcpuDirtyLimit } from '../../src/migrate/vcpu-dirty-limit.ts';
import { ManualClock } from '../support/manual-clock.ts';

const MiB = 1 << 20;
const needsRing = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'";

/** Two vCPUs that write 200 MiB/s each, and rings of 16 MiB. */
function makeVm() {
  const clock = new ManualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: 64 * MiB }]);
  const workload = { rate: 400 * MiB, workingSet: 16 * MiB, vcpus: 2, pattern: 'zero' as const };
  const guest = new SyntheticGuest({ ram, workload, clock });
  const limit = new VcpuDirtyLimit(new SyntheticRing(guest), clock);
  /** MiB/s of each vCPU in the next second, and the quotas' own answers after it. */
  const second = async () => {
    await guest.look();
    const before = guest.vcpuPagesWritten;
    await clock.advance(1000);
    await guest.look();
    const rates = guest.vcpuPagesWritten.map((pages, i) => Math.round((pages - (before[i] ?? 0)) / 256));
    // The measurement ends at the same moment, and takes some turns.
    for (let turn = 0; turn < 8; turn++) await new Promise(setImmediate);
    return rates;
  };
  return { clock, guest, limit, second };
}

describe('without a dirty ring', () => {
  it('nothing can be limited, in the words of QEMU', () => {
    const limit = new VcpuDirtyLimit(undefined);
    for (const index of [undefined, 0, 99, -1]) {
      const where = index === undefined ? {} : { 'cpu-index': index };
      expect(() => limit.set({ ...where, 'dirty-rate': 100 })).toThrow(new Error(needsRing));
      expect(() => limit.set({ ...where, 'dirty-rate': 0 })).toThrow(new Error(needsRing));
    }
    limit.cancel();
    limit.cancel({ 'cpu-index': 99 });
    expect(limit.query()).toEqual([]);
    limit.limitForMigration(1, () => 1000);
    expect(limit.members).toEqual({});
  });
});

describe('with a dirty ring', () => {
  it('a vCPU comes close to its quota, and the other one writes on', async () => {
    const { limit, second } = makeVm();
    expect(await second()).toEqual([200, 200]);
    limit.set({ 'cpu-index': 1, 'dirty-rate': 60 });
    expect(limit.query()).toEqual([{ 'cpu-index': 1, 'limit-rate': 60, 'current-rate': 0 }]);
    for (let i = 0; i < 10; i++) await second();
    const [free, limited = 0] = await second();
    expect(free).toBe(200);
    // QEMU leaves what is within 25 MiB/s.
    expect(Math.abs(limited - 60)).toBeLessThanOrEqual(26);
    const [answer] = limit.query();
    expect(Math.abs((answer?.['current-rate'] ?? 0) - limited)).toBeLessThanOrEqual(1);
    expect(limit.members['dirty-limit-throttle-time-per-round']).toBeGreaterThan(0);
    expect(limit.members['dirty-limit-ring-full-time']).toBeGreaterThan(0);
    await limit.close();
  });

  it('the first sleep is that of the rules', async () => {
    const { limit, second, clock } = makeVm();
    limit.set({ 'dirty-rate': 20 });
    await clock.advance(0);
    await second();
    // 16 MiB at 200 MiB/s are full in 80 ms; 90 per cent too much.
    expect(limit.members).toEqual({
      ...{ 'dirty-limit-throttle-time-per-round': 720_000, 'dirty-limit-ring-full-time': 80_000 },
    });
    await limit.close();
  });

  it('a limit that is cancelled ends at once, as does one of 0', async () => {
    const { limit, second } = makeVm();
    limit.set({ 'dirty-rate': 20 });
    for (let i = 0; i < 3; i++) await second();
    expect((await second())[0]).toBeLessThan(60);
    limit.set({ 'cpu-index': 0, 'dirty-rate': 0 });
    expect((await second())[0]).toBe(200);
    expect(limit.query()).toMatchObject([{ 'cpu-index': 1 }]);
    limit.cancel();
    expect(await second()).toEqual([200, 200]);
    expect([limit.query(), limit.members]).toEqual([[], {}]);
  });

  it('takes every quota that a uint64 can be, and refuses vCPUs that it does not have', async () => {
    const { limit } = makeVm();
    limit.set({ 'dirty-rate': 2n ** 64n - 1n });
    expect(limit.query()[1]).toEqual({ 'cpu-index': 1, 'limit-rate': 2n ** 64n - 1n, 'current-rate': 0 });
    for (const index of [2, -1, 2n ** 40n]) {
      const wrong = new Error('incorrect cpu index specified');
      expect(() => limit.set({ 'cpu-index': index, 'dirty-rate': 1 })).toThrow(wrong);
      expect(() => limit.cancel({ 'cpu-index': index })).toThrow(wrong);
    }
    await limit.close();
  });

  it('the limit of a migration cannot be changed, follows vcpu-dirty-limit, and ends when it is cancelled', async () => {
    const { limit, second } = makeVm();
    limit.limitForMigration(100, () => 500);
    expect(limit.query().map((each) => each['limit-rate'])).toEqual([100, 100]);
    expect(() => limit.set({ 'dirty-rate': 5 })).toThrow(
      new Error("can't set dirty page rate limit while migration is running"),
    );
    expect(() => limit.cancel()).toThrow(new Error("can't cancel dirty page rate limit while migration is running"));
    limit.limitForMigration(50, () => 500);
    expect(limit.query().map((each) => each['limit-rate'])).toEqual([50, 50]);
    for (let i = 0; i < 8; i++) await second();
    expect((await second())[0]).toBeLessThanOrEqual(76);
    limit.endMigration(true);
    expect(limit.query()).toEqual([]);
    expect(await second()).toEqual([200, 200]);
    limit.limitForMigration(50, () => 500);
    limit.endMigration(false);
    expect(limit.query()).toHaveLength(2);
    limit.cancel();
    expect(limit.query()).toEqual([]);
  });
});
