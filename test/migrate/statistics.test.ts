/**
 * No statistic of a migration is a constant: changing the workload changes the dirty rate, the passes, the throttling and
 * the numbers of XBZRLE, as much as it should. In virtual time.
 */
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { SyntheticRing } from '../../src/guest/synthetic-ring.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import { OutgoingMigration, type OutgoingMigrationOptions } from '../../src/migrate/outgoing-migration.ts';
import { receive } from '../../src/migrate/receive.ts';
import { VcpuDirtyLimit } from '../../src/migrate/vcpu-dirty-limit.ts';
import { throttleDefaults } from '../../src/schema/precopy-rules.ts';
import { XbzrleCounters } from '../../src/write/xbzrle-cache.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { MemoryListener } from './memory-listener.ts';

const MiB = 1 << 20;
const codecs = new NodeCodecs();

type Answer = ReturnType<OutgoingMigration['query']>;

/** Migrates a guest until it is there, or until so many passes. Returns what was asked at each pass. */
async function migrate(
  workload: WorkloadOptions,
  passes: number,
  more: Partial<OutgoingMigrationOptions> = {},
): Promise<{ answers: Answer[]; last: Answer; limit: VcpuDirtyLimit }> {
  const clock = new VirtualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: 16 * MiB }]);
  // The first pass takes a second or two.
  const image = new Uint32Array(ram.blocks[0]!.usedLength / 4).map((_, i) => Math.imul(i, 2654435761));
  await ram.load(ram.blocks[0]!, new MemoryFile('image', new Uint8Array(image.buffer)));
  const guest = new SyntheticGuest({ ram, workload, clock });
  const listener = new MemoryListener();
  const target = { file: new MemoryFile('OUT'), commit: async () => {} };
  receive(new Incoming(listener), target, { codecs }).catch(() => {});
  const limit = new VcpuDirtyLimit(new SyntheticRing(guest), clock);
  const answers: Answer[] = [];
  const migration: OutgoingMigration = new OutgoingMigration(
    {
      guest,
      stop: () => guest.stop(),
      restart: () => guest.cont(),
      leave() {},
      onStatus() {},
      onPass(pass) {
        answers.push(migration.query());
        if (pass === passes) migration.cancel();
      },
      throttle: (percentage) => guest.throttle(percentage),
      limitVcpus: () => limit.limitForMigration(1, () => 1000),
    },
    {
      parameters: {
        ...{ ...throttleDefaults, 'downtime-limit': 1, 'avail-switchover-bandwidth': 0 },
        'max-bandwidth': 8 * MiB,
      },
      connect: async () => listener.connect(),
      ...{ autoConverge: false, pauseBeforeSwitchover: false, alwaysEntersDevice: true, clock },
      ...more,
    },
  );
  await migration.run();
  return { answers, last: answers.at(-1) as Answer, limit };
}

const rateOf = ({ ram }: Answer) => ram?.['dirty-pages-rate'] ?? 0;
/** It never converges at a downtime-limit of 1 ms, if it is written fast enough. */
const busy = { workingSet: 8 * MiB, pattern: 'random' as const };
/** So slow that a pass takes its time even if all of it goes as deltas. */
const slow = {
  ...{ ...throttleDefaults, 'downtime-limit': 1, 'avail-switchover-bandwidth': 0 },
  'max-bandwidth': MiB / 16,
};
const fast = { ...busy, rate: 64 * MiB };

describe('the statistics of a migration', () => {
  it('have the dirty rate of the workload', async () => {
    for (const rate of [MiB, 2 * MiB, 6 * MiB]) {
      const { last } = await migrate({ ...busy, workingSet: 14 * MiB, rate }, 12);
      expect(rateOf(last) / (rate / 4096)).toBeGreaterThan(0.95);
      expect(rateOf(last) / (rate / 4096)).toBeLessThan(1.05);
    }
    // A working set that is written more than once in a period counts once for each sync.
    const { last } = await migrate({ ...busy, rate: 64 * MiB }, 12);
    expect(rateOf(last)).toBeGreaterThan(1500);
    expect(rateOf(last)).toBeLessThan(2500);
  });

  it('have as many passes as the workload makes necessary', async () => {
    const parameters = { ...throttleDefaults, 'downtime-limit': 100, 'avail-switchover-bandwidth': 0 };
    const passes = async (rate: number) => {
      const options = { parameters: { ...parameters, 'max-bandwidth': 8 * MiB } };
      return (await migrate({ ...busy, rate }, 1000, options)).answers.length;
    };
    const counts = [await passes(0), await passes(2 * MiB), await passes(5 * MiB)] as const;
    expect(counts[0]).toBeLessThan(counts[1]);
    expect(counts[1]).toBeLessThan(counts[2]);
  });

  it('have the throttling that the workload makes necessary', async () => {
    const throttled = async (rate: number) =>
      (await migrate({ ...busy, rate }, 24, { autoConverge: true })).last['cpu-throttle-percentage'];
    expect(await throttled(2 * MiB)).toBeUndefined();
    const [some = 0, much = 0] = [await throttled(6 * MiB), await throttled(64 * MiB)];
    expect(some).toBeGreaterThanOrEqual(20);
    expect(much).toBeGreaterThan(some);
  });

  it('with dirty-limit show how much the vCPUs are limited, and it converges', async () => {
    const parameters = {
      ...{ ...throttleDefaults, 'downtime-limit': 100, 'avail-switchover-bandwidth': 0 },
      'max-bandwidth': 40 * MiB,
    };
    const workload = { ...busy, rate: 64 * MiB };
    const free = await migrate(workload, 100, { parameters });
    expect(free.answers).toHaveLength(100);
    expect(free.limit.query()).toEqual([]);
    const { answers, limit } = await migrate(workload, 100, { parameters, dirtyLimit: true });
    expect(answers.length).toBeLessThan(100);
    // The quota is 1 MiB/s, and QEMU is content with 25 more.
    expect(limit.query()).toMatchObject([{ 'cpu-index': 0, 'limit-rate': 1 }]);
    expect(limit.members['dirty-limit-throttle-time-per-round']).toBeGreaterThan(0);
    await limit.close();
  });

  it('have an expected downtime that is what is left at the bandwidth', async () => {
    const { last } = await migrate({ ...busy, rate: 64 * MiB }, 12);
    // All of the working set is dirty again: 8 MiB at 8 MiB/s.
    expect(last['expected-downtime']).toBeGreaterThan(900);
    expect(last['expected-downtime']).toBeLessThan(1100);
    expect(last.ram?.mbps).toBeGreaterThan(60);
    expect(last.ram?.mbps).toBeLessThan(72);
  });

  it('have the numbers of XBZRLE that the pattern makes', async () => {
    const withPattern = async (pattern: 'counter' | 'random', passes: number) => {
      const xbzrle = { cacheSize: 16 * MiB };
      return (await migrate({ ...fast, pattern }, passes, { xbzrle, parameters: slow })).last['xbzrle-cache'];
    };
    const counter = await withPattern('counter', 30);
    expect(counter?.pages).toBeGreaterThan(1000);
    expect(counter?.['encoding-rate']).toBeGreaterThan(100);
    expect(counter?.overflow).toBe(0);
    const random = await withPattern('random', 6);
    expect(random?.overflow).toBeGreaterThan(100);
    expect(random?.['encoding-rate']).toBeLessThanOrEqual(1);
    expect(random?.bytes).toBeGreaterThanOrEqual((random?.overflow ?? 0) * 4096);
    const small = await migrate(fast, 6, { xbzrle: { cacheSize: MiB }, parameters: slow });
    expect(small.last['xbzrle-cache']).toMatchObject({ 'cache-size': MiB });
    expect(small.last['xbzrle-cache']?.['cache-miss']).toBeGreaterThan(random?.['cache-miss'] ?? 0);
    expect(small.last['xbzrle-cache']?.['cache-miss-rate']).toBeGreaterThan(random?.['cache-miss-rate'] ?? 0);
  });

  it('count pages that go as deltas in pages-per-second', async () => {
    const xbzrle = { cacheSize: 16 * MiB };
    const { last } = await migrate({ ...fast, pattern: 'counter' }, 30, { xbzrle, parameters: slow });
    // Whole pages would be 64 per second at this bandwidth.
    expect(last.ram?.['pages-per-second']).toBeGreaterThan(4000);
  });

  it('of XBZRLE go on from one migration to the next', async () => {
    const counters = new XbzrleCounters();
    const xbzrle = { cacheSize: 16 * MiB, counters };
    const workload = { ...fast, pattern: 'counter' as const };
    const one = await migrate(workload, 30, { xbzrle, parameters: slow });
    const first = { ...counters };
    expect(first.pages).toBeGreaterThan(0);
    expect(first.pages).toBeGreaterThanOrEqual(one.last['xbzrle-cache']?.pages ?? 0);
    const two = await migrate(workload, 30, { xbzrle, parameters: slow });
    const begin = two.answers.find((answer) => answer['xbzrle-cache'] !== undefined)?.['xbzrle-cache'];
    expect(begin).toMatchObject({ pages: first.pages, bytes: first.bytes, 'cache-miss': first.cacheMiss });
    expect(counters.pages).toBeGreaterThan(first.pages);
    // Its rates are those of its own periods.
    expect(two.last['xbzrle-cache']?.['encoding-rate']).toBeGreaterThan(100);
  });
});
