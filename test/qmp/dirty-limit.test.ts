/**
 * Limits of vCPUs over QMP: of a VM that has dirty rings, as a QEMU with KVM and `dirty-ring-size`, and of one that has
 * none. The answers are those of real QEMU 7.2 and 10.0 in both cases.
 */
import { describe, expect, it } from 'vitest';
import { Network, TestVm } from '../support/machines.ts';

const MiB = 1 << 20;
const needsRing = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'";
const workload = { rate: 400 * MiB, workingSet: 4 * MiB, pattern: 'zero' as const, vcpus: 2 };

describe.each(['7.2', '9.0', '10.0'] as const)('QEMU %s without a dirty ring', (release) => {
  it('limits nothing', async () => {
    const vm = new TestVm(new Network(), { release });
    await expect(vm.execute('set-vcpu-dirty-limit', { 'dirty-rate': 5 })).rejects.toThrow(new Error(needsRing));
    expect(await vm.execute('cancel-vcpu-dirty-limit', { 'cpu-index': 77 })).toEqual({});
    expect(await vm.execute('query-vcpu-dirty-limit')).toEqual([]);
    if (release === '7.2') return;
    await expect(vm.switchOn('dirty-limit')).rejects.toThrow(
      new Error("dirty-limit requires KVM with accelerator property 'dirty-ring-size' set"),
    );
  });
});

describe.each(['7.2', '9.0', '10.0'] as const)('QEMU %s with a dirty ring', (release) => {
  it('limits one vCPU, or all, and forgets the limits', async () => {
    const vm = new TestVm(new Network(), { release, workload, ringSize: 4096 });
    const set = (given: object) => vm.execute('set-vcpu-dirty-limit', { ...given });
    const limits = () => vm.execute('query-vcpu-dirty-limit');
    expect(await limits()).toEqual([]);
    expect(await set({ 'dirty-rate': 5, 'cpu-index': 1 })).toEqual({});
    expect(await limits()).toMatchObject([{ 'cpu-index': 1, 'limit-rate': 5 }]);
    const wrong = new Error('incorrect cpu index specified');
    await expect(vm.execute('cancel-vcpu-dirty-limit', { 'cpu-index': 77 })).rejects.toThrow(wrong);
    await expect(set({ 'dirty-rate': 0, 'cpu-index': 2 })).rejects.toThrow(wrong);
    await set({ 'dirty-rate': 0, 'cpu-index': 1 });
    expect(await limits()).toEqual([]);
    await set({ 'dirty-rate': 50 });
    expect(await limits()).toMatchObject([{ 'cpu-index': 0 }, { 'cpu-index': 1 }]);
    expect(await vm.execute('query-migrate')).toEqual({});
    await vm.execute('cancel-vcpu-dirty-limit', { 'cpu-index': 1 });
    expect(await limits()).toMatchObject([{ 'cpu-index': 0, 'limit-rate': 50 }]);
    await vm.execute('cancel-vcpu-dirty-limit');
    expect(await limits()).toEqual([]);
  });

  it('measures the dirty rate of each vCPU, and not by bitmap', async () => {
    const network = new Network();
    const vm = new TestVm(network, { release, workload, ringSize: 4096 });
    const mode = (name: string) => vm.execute('calc-dirty-rate', { 'calc-time': 1, mode: name });
    await expect(mode('dirty-bitmap')).rejects.toThrow('mode dirty-bitmap is not enabled, use other method instead.');
    await mode('dirty-ring');
    await network.clock.sleep(1500);
    expect(await vm.execute('query-dirty-rate')).toMatchObject({
      ...{ status: 'measured', mode: 'dirty-ring', 'dirty-rate': 400 },
      'vcpu-dirty-rate': [
        { id: 0, 'dirty-rate': 200 },
        { id: 1, 'dirty-rate': 200 },
      ],
    });
  });
});

describe('a migration with dirty-limit', () => {
  /** A guest that dirties much more than its line takes. */
  async function begin() {
    const network = new Network();
    const busy = { ...workload, workingSet: 12 * MiB, pattern: 'random' as const };
    const from = new TestVm(network, { release: '10.0', workload: busy, ringSize: 1024, memory: 16 * MiB });
    const to = new TestVm(network, { release: '10.0', incoming: 'in' });
    await from.switchOn('events', 'dirty-limit', 'return-path');
    await to.switchOn('events');
    await from.execute('migrate-set-parameters', {
      ...{ 'max-bandwidth': 2 * MiB, 'downtime-limit': 50 },
      ...{ 'vcpu-dirty-limit': 3, 'x-vcpu-dirty-limit-period': 500 },
    });
    // By then its working set is no longer zero.
    await network.clock.sleep(1000);
    await from.execute('migrate', { uri: 'unix:in' });
    return { network, from, to };
  }

  /** Waits until a vCPU sleeps. */
  async function inForce({ network, from }: Awaited<ReturnType<typeof begin>>) {
    for (;;) {
      const info = await from.execute('query-migrate');
      const sleep = info['dirty-limit-throttle-time-per-round'];
      if (typeof sleep === 'number' && sleep > 0) return info;
      expect(info.status).not.toBe('completed');
      await network.clock.sleep(100);
    }
  }

  it('holds the vCPUs back, says so, and stays in force afterwards', async () => {
    const scene = await begin();
    const { from, to } = scene;
    const info = await inForce(scene);
    expect(info.status).toBe('active');
    expect(info['dirty-limit-ring-full-time']).toBeGreaterThan(0);
    expect(await from.execute('query-vcpu-dirty-limit')).toMatchObject([{ 'limit-rate': 3 }, { 'limit-rate': 3 }]);
    const text = (verb: string) => `can't ${verb} dirty page rate limit while migration is running`;
    await expect(from.execute('set-vcpu-dirty-limit', { 'dirty-rate': 60 })).rejects.toThrow(new Error(text('set')));
    await expect(from.execute('cancel-vcpu-dirty-limit')).rejects.toThrow(new Error(text('cancel')));
    await from.execute('migrate-set-parameters', { 'max-bandwidth': 400 * MiB });
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    // The limits stay after a success, and are named as long as they do.
    expect(await from.execute('query-migrate')).toHaveProperty('dirty-limit-throttle-time-per-round');
    await from.execute('cancel-vcpu-dirty-limit');
    expect(await from.execute('query-migrate')).not.toHaveProperty('dirty-limit-throttle-time-per-round');
  });

  it('forgets its limits when it is cancelled', async () => {
    const scene = await begin();
    const { from } = scene;
    await inForce(scene);
    await from.execute('migrate_cancel');
    await from.event('MIGRATION cancelled');
    expect(await from.execute('query-vcpu-dirty-limit')).toEqual([]);
    expect(await from.execute('query-migrate')).toEqual({ status: 'cancelled' });
  });
});
