/** COLO between two machines, as their monitors see it. Events, answers and their order are those of QEMU 7.2. */
import { afterEach, describe, expect, it } from 'vitest';
import { Network, TestVm, withoutPasses } from '../support/machines.ts';

const MiB = 1 << 20;
const workload = { rate: 2 * MiB, workingSet: 4 * MiB, pattern: 'random' as const };
const delay = 500;

/** Machines whose checkpoints must end with the test. */
const begun: TestVm[] = [];

afterEach(async () => {
  for (const vm of begun.splice(0)) await vm.execute(gone).catch(() => {});
});

/** Two machines in COLO. */
async function begin() {
  const network = new Network();
  const from = new TestVm(network, { release: '7.2', workload });
  const to = new TestVm(network, { release: '7.2', incoming: 'in' });
  for (const vm of [from, to]) await vm.switchOn('events', 'x-colo');
  await from.execute('migrate-set-parameters', { 'x-checkpoint-delay': delay });
  await network.clock.sleep(1000);
  await from.execute('migrate', { uri: 'unix:in' });
  begun.push(from, to);
  await Promise.all([from.event('MIGRATION colo'), to.event('MIGRATION colo')]);
  return { network, from, to };
}

const checkpoint = ['STOP', 'RESUME'];
const gone = 'x-colo-lost-heartbeat';
const running = { status: 'running', running: true };

describe('COLO', () => {
  it('makes checkpoints, one after another, with the same guest at both sides', async () => {
    const { from, to } = await begin();
    expect(await from.execute('query-colo-status')).toEqual({ mode: 'primary', 'last-mode': 'none', reason: 'none' });
    await Promise.all([from.event('RESUME', 4), to.event('RESUME', 4)]);
    expect(await to.execute('query-colo-status')).toEqual({ mode: 'secondary', 'last-mode': 'none', reason: 'none' });
    for (const vm of [from, to]) expect((await vm.execute('query-migrate')).status).toBe('colo');
    expect(withoutPasses(from.events).slice(0, 7)).toEqual([
      ...['MIGRATION setup', 'MIGRATION active', 'STOP', 'MIGRATION colo', 'RESUME', ...checkpoint],
    ]);
    expect(to.events.slice(0, 5)).toEqual(['MIGRATION active', 'MIGRATION colo', 'RESUME', ...checkpoint]);
    expect(from.events).toContain('MIGRATION_PASS 4');
    await expect(from.execute('migrate', { uri: 'unix:in' })).rejects.toThrow('in progress');
  });

  it('the primary goes on alone when the secondary is lost', async () => {
    const { from, to } = await begin();
    await from.event('RESUME', 2);
    expect(await from.execute(gone)).toEqual({});
    await from.event('COLO_EXIT');
    await to.event('COLO_EXIT');
    expect(withoutPasses(from.events).slice(-3)).toEqual(['MIGRATION completed', 'COLO_EXIT', 'RESUME']);
    expect(await from.execute('query-colo-status')).toEqual({
      mode: 'none',
      'last-mode': 'primary',
      reason: 'request',
    });
    expect(await from.execute('query-status')).toMatchObject(running);
    expect(await from.execute('query-migrate')).toMatchObject({ status: 'completed' });
    await expect(from.execute(gone)).rejects.toThrow(new Error("The feature 'colo' is not enabled"));
    // The secondary waits until somebody says that the primary is lost.
    expect(await to.execute('query-colo-status')).toEqual({ mode: 'secondary', 'last-mode': 'none', reason: 'none' });
    expect(await to.execute('query-migrate')).toMatchObject({ status: 'colo' });
  });

  it('the secondary takes over with the guest of the last checkpoint', async () => {
    const { network, from, to } = await begin();
    await Promise.all([from.event('RESUME', 3), to.event('RESUME', 3)]);
    // The primary is stopped before it writes more than the next checkpoint has.
    await from.execute('stop');
    const last = to.events.filter((event) => event === 'RESUME').length;
    await to.event('RESUME', last + 2);
    expect(await to.execute(gone)).toEqual({});
    await to.event('COLO_EXIT');
    await from.event('COLO_EXIT');
    await network.clock.sleep(10);
    expect(to.events.slice(-4)).toEqual(['STOP', 'MIGRATION completed', 'COLO_EXIT', 'RESUME']);
    expect(await to.execute('query-colo-status')).toEqual({
      mode: 'none',
      'last-mode': 'secondary',
      reason: 'request',
    });
    expect(await to.execute('query-status')).toMatchObject(running);
    expect(await to.execute('query-migrate')).toEqual({ status: 'completed' });
    expect((await to.ram()).equals(await from.ram())).toBe(true);
    expect((await to.ram()).some((byte) => byte !== 0)).toBe(true);
  });

  it('begins a checkpoint at once when x-checkpoint-delay is set', async () => {
    const { from } = await begin();
    await from.event('RESUME');
    await from.execute('migrate-set-parameters', { 'x-checkpoint-delay': 3_600_000 });
    await from.event('RESUME', 2);
    await from.execute('migrate-set-parameters', { 'x-checkpoint-delay': 3_600_000 });
    await from.event('RESUME', 3);
  });

  it.each([
    ['the destination does not want it', '7.2', [], 'ENABLE_COLO command come in migration stream'],
    ['the source is of 10.0, which never begins', '10.0', ['x-colo'], undefined],
  ] as const)('does not begin if %s', async (_, release, capabilities, report) => {
    const network = new Network();
    const from = new TestVm(network, { release });
    const to = new TestVm(network, { release, incoming: 'in' });
    await from.switchOn('events', 'x-colo');
    await to.switchOn('events', ...capabilities);
    await from.execute('migrate', { uri: 'unix:in' });
    if (report !== undefined) {
      await to.event('MIGRATION failed');
      expect(to.reports.join()).toContain(report);
      return;
    }
    await from.event('MIGRATION completed');
    await to.event('COLO_EXIT');
    expect(await from.execute('query-status')).toMatchObject({ status: 'postmigrate' });
    expect(await from.execute('query-colo-status')).toEqual({ mode: 'none', 'last-mode': 'none', reason: 'none' });
  });
});
