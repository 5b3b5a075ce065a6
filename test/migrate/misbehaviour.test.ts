/** Migrations that misbehave on demand, in virtual time: where they fail and stand still, and that they never converge. */
import { expect, it } from 'vitest';
import type { Misbehaviour } from '../../src/migrate/misbehaviour.ts';
import { Network, TestVm, withoutPasses } from '../support/machines.ts';

const workload = { rate: 32 << 20, workingSet: 30 << 20, pattern: 'random' } as const;
const memory = 32 << 20;

async function misbehaving(how: Omit<Misbehaviour, 'seed'>, release: '7.2' | '9.0' | '10.0' = '9.0') {
  const network = new Network();
  const from = new TestVm(network, { release, memory, workload, misbehave: { ...how, seed: 1 } });
  const to = new TestVm(network, { release, incoming: 'b' });
  await from.switchOn('events');
  // By then it has written to all of its working set.
  await network.clock.sleep(1000);
  await from.execute('migrate', { uri: 'unix:b' });
  return { network, from, to };
}

async function ramOf(vm: TestVm) {
  return (await vm.execute('query-migrate')).ram as Record<string, number>;
}

it.each([0, 25, 50, 75, 100])('fails at %i per cent, its guest runs on, and the next one fails, too', async (fail) => {
  const { from } = await misbehaving({ fail });
  await from.event('MIGRATION failed');
  expect((await from.execute('query-migrate'))['error-desc']).toBe(
    'Unable to write to socket: Connection reset by peer',
  );
  expect(await from.execute('query-status')).toMatchObject({ running: true });
  const next = new TestVm(from.network, { incoming: 'c' });
  await from.execute('migrate', { uri: 'unix:c' });
  await from.event('MIGRATION failed', 2);
  expect(next.machine.hasGuest).toBe(false);
});

it.each([0, 30])('stands still at %i per cent, answers, and can be cancelled', async (stall) => {
  const { network, from } = await misbehaving({ stall });
  await from.event('MIGRATION active');
  const seconds = async (count: number) => {
    for (let i = 0; i < count; i++) await network.clock.sleep(1000);
  };
  await seconds(20);
  const ram = await ramOf(from);
  const { remaining = 0, total = 0, transferred, 'dirty-sync-count': passes = 0 } = ram;
  const sent = passes > 1 ? 100 : 100 * (1 - remaining / total);
  expect(sent).toBeGreaterThanOrEqual(stall);
  // What is in buffers has been made already.
  expect(sent).toBeLessThanOrEqual(Math.min(100, stall + 30));
  await seconds(20);
  expect((await ramOf(from)).transferred).toBe(transferred);
  await from.execute('migrate_cancel');
  await from.event('MIGRATION cancelled');
  expect(await from.execute('query-status')).toMatchObject({ running: true });
});

it('stalls over all channels of multifd', async () => {
  const network = new Network();
  const from = new TestVm(network, { memory, workload, misbehave: { stall: 40, seed: 1 } });
  const to = new TestVm(network, { incoming: 'defer' });
  for (const vm of [from, to]) await vm.switchOn('events', 'multifd');
  await to.execute('migrate-incoming', { uri: 'unix:b' });
  await from.execute('migrate', { uri: 'unix:b' });
  await from.event('MIGRATION active');
  for (let i = 0; i < 20; i++) await network.clock.sleep(1000);
  expect(await from.execute('query-migrate')).toMatchObject({ status: 'active' });
  await from.execute('migrate_cancel');
  await from.event('MIGRATION cancelled');
});

it('never converges, with any downtime and the guest slowed down, the same with the same seed', async () => {
  const runs = [];
  for (let i = 0; i < 2; i++) {
    const { from } = await misbehaving({ neverConverges: 0 });
    await from.execute('migrate-set-parameters', { 'downtime-limit': 2_000_000 });
    await from.event('MIGRATION_PASS 20');
    const { status, ram } = await from.execute('query-migrate');
    expect(status).toBe('active');
    await from.execute('migrate_cancel');
    await from.event('MIGRATION cancelled');
    expect(withoutPasses(from.events)).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'MIGRATION cancelling',
      'MIGRATION cancelled',
    ]);
    runs.push((ram as Record<string, number>).remaining);
  }
  expect(runs[0]).toBeGreaterThan(0);
  expect(runs[1]).toBe(runs[0]);
});

it('converges without', async () => {
  const { from, to } = await misbehaving({});
  await from.event('MIGRATION completed');
  while (!to.machine.hasGuest) await new Promise((resolve) => setImmediate(resolve));
  expect((await to.ram()).equals(await from.ram())).toBe(true);
});
