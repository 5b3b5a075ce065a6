/** COLO between two machines, as their monitors see it. Events, answers and their order are those of QEMU 7.2. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { GuestCheckpoints } from '../../src/guest/guest-checkpoints.ts';
import type { Connection } from '../../src/io/connection.ts';
import { Network, TestVm, withoutPasses } from '../support/machines.ts';

type Json = Record<string, number>;

const MiB = 1 << 20;
const workload = { rate: 2 * MiB, workingSet: 4 * MiB, pattern: 'random' as const };
const delay = 500;

/** Machines whose checkpoints must end with the test. */
const begun: TestVm[] = [];

afterEach(async () => {
  for (const vm of begun.splice(0)) await vm.execute(gone).catch(() => {});
});

/** The secondary has loaded checkpoint `number`, and the primary never hears of it: it stays stopped. */
function holding(line: Connection, number: number): Connection {
  let seen = 0;
  const read = async (target: Uint8Array, position: number) => {
    const count = await line.read(target, position);
    if (count === 4 && target[3] === 6 && ++seen === number) await new Promise(() => {});
    return count;
  };
  return new Proxy(line, {
    get(_, name) {
      const value = name === 'read' ? read : Reflect.get(line, name, line);
      return typeof value === 'function' ? value.bind(line) : value;
    },
  });
}

/** Two machines in COLO, until a checkpoint that the primary does not finish. */
async function begin(
  capabilities: readonly string[] = [],
  { last = Number.POSITIVE_INFINITY, pattern = 'random' as 'random' | 'counter', workingSet = 4 * MiB } = {},
) {
  const network = new Network();
  network.wrap = (line, number) => (number === 0 ? holding(line, last) : line);
  const from = new TestVm(network, { release: '7.2', workload: { ...workload, pattern, workingSet } });
  const to = new TestVm(network, { release: '7.2', incoming: 'in' });
  for (const vm of [from, to]) await vm.switchOn('events', 'x-colo', ...capabilities);
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
    for (const vm of [from, to])
      await expect(vm.execute('migrate', { uri: 'unix:in' })).rejects.toThrow(new Error('duplicate yank instance'));
    // 7.2 takes capabilities while it is in COLO.
    for (const vm of [from, to]) await vm.switchOn('xbzrle');
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
    expect(await from.execute('query-migrate')).toMatchObject({ status: 'completed', downtime: 0, 'total-time': 0 });
    await expect(from.execute(gone)).rejects.toThrow(new Error("The feature 'colo' is not enabled"));
    // The secondary waits until somebody says that the primary is lost.
    expect(await to.execute('query-colo-status')).toEqual({ mode: 'secondary', 'last-mode': 'none', reason: 'none' });
    expect(await to.execute('query-migrate')).toMatchObject({ status: 'colo' });
  });

  it.each([
    ['plain', [], 'random'],
    ['through channels', ['multifd'], 'random'],
    ['as deltas', ['xbzrle'], 'counter'],
  ] as const)('the secondary takes over with the guest of the last checkpoint: pages %s', async (_, on, pattern) => {
    const { network, from, to } = await begin(on, {
      last: 3,
      pattern,
      workingSet: pattern === 'counter' ? MiB : 4 * MiB,
    });
    await to.event('RESUME', 4);
    expect(await from.execute('query-status')).toMatchObject({ status: 'colo', running: false });
    expect(await to.execute(gone)).toEqual({});
    await to.event('COLO_EXIT');
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
    // The primary stands within its checkpoint until somebody says that the secondary is lost.
    expect(await from.execute(gone)).toEqual({});
    await from.event('RESUME', 4);
    expect(from.events.slice(-3)).toEqual(['MIGRATION completed', 'COLO_EXIT', 'RESUME']);
    const { 'xbzrle-cache': deltas, ram } = (await from.execute('query-migrate')) as Record<string, Json>;
    if (pattern === 'counter') expect(deltas?.pages).toBeGreaterThan(0);
    expect(Number(ram?.['multifd-bytes']) > MiB).toBe(on.length > 0 && pattern === 'random');
  });

  it('a checkpoint that is being loaded becomes the guest before the secondary takes over', async () => {
    let go = () => {};
    const loading = new Promise<void>((begun) => {
      const apply = GuestCheckpoints.prototype.apply;
      vi.spyOn(GuestCheckpoints.prototype, 'apply').mockImplementation(async function (
        this: GuestCheckpoints,
        devices,
      ) {
        begun();
        await new Promise<void>((resolve) => {
          go = resolve;
        });
        return apply.call(this, devices);
      });
    });
    const { from, to } = await begin();
    await loading;
    expect(await to.execute(gone)).toEqual({});
    expect(await to.execute('query-colo-status')).toEqual({
      mode: 'secondary',
      'last-mode': 'none',
      reason: 'processing',
    });
    await expect(to.execute(gone)).rejects.toThrow(new Error('COLO failover is already activated'));
    expect(to.events.at(-1)).toBe('STOP');
    go();
    await to.event('RESUME', 2);
    expect(to.events.slice(-3)).toEqual(['MIGRATION completed', 'COLO_EXIT', 'RESUME']);
    expect((await to.ram()).equals(await from.ram())).toBe(true);
    vi.restoreAllMocks();
  });

  it('runs again after a checkpoint, whatever was asked for before', async () => {
    const { from, to } = await begin();
    await Promise.all([from.event('RESUME'), to.event('RESUME')]);
    for (const vm of [from, to]) await vm.execute('stop');
    await Promise.all([from.event('RESUME', 2), to.event('RESUME', 2)]);
    for (const vm of [from, to]) expect(await vm.execute('query-status')).toMatchObject(running);
    expect(withoutPasses(from.events).slice(-2)).toEqual(['STOP', 'RESUME']);
  });

  it('migrate_cancel breaks its line, and nothing else', async () => {
    const { from, to } = await begin();
    await from.event('RESUME', 2);
    await from.execute('migrate_cancel');
    await Promise.all([from.event('COLO_EXIT'), to.event('COLO_EXIT')]);
    for (const vm of [from, to]) expect((await vm.execute('query-migrate')).status).toBe('colo');
    expect(await from.execute('query-status')).toMatchObject(running);
    await from.execute(gone);
    await from.event('RESUME', 3);
    expect(withoutPasses(from.events).slice(-4)).toEqual(['COLO_EXIT', 'STOP', 'MIGRATION completed', 'RESUME']);
  });

  it.each(['return-path', 'postcopy-ram'])('fails with %s, whose source does not expect its messages', async (name) => {
    const network = new Network();
    const from = new TestVm(network, { release: '7.2', workload });
    const to = new TestVm(network, { release: '7.2', incoming: 'in' });
    for (const vm of [from, to]) await vm.switchOn('events', 'x-colo', name);
    await from.execute('migrate', { uri: 'unix:in' });
    await Promise.all([from.event('RESUME'), to.event('COLO_EXIT')]);
    expect(withoutPasses(from.events)).toEqual([
      ...['MIGRATION setup', 'MIGRATION active', 'STOP', 'MIGRATION failed', 'RESUME'],
    ]);
    expect(to.events).toEqual(['MIGRATION active', 'MIGRATION colo', 'RESUME', 'COLO_EXIT']);
    expect(await from.execute('query-colo-status')).toEqual({ mode: 'none', 'last-mode': 'none', reason: 'none' });
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
