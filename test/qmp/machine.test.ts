/** Machines that migrate, as their monitors see it: answers, events and their order are QEMU's (docs/qmp.md). */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { WrappedConnection } from '../../src/io/wrapped-connection.ts';
import { BlockNode, BlockNodes } from '../../src/migrate/block-node.ts';
import type { ReleaseName } from '../../src/schema/release-rules.ts';
import { Network, TestVm, type TestVmOptions, withoutPasses } from '../support/machines.ts';

const MiB = 1 << 20;
const workload = { rate: 2 * MiB, workingSet: 4 * MiB, pattern: 'random' as const };

/** A source with a workload, and a destination that waits at `unix:in`. */
async function makePair(release: ReleaseName = '9.0', source: TestVmOptions = {}, target: TestVmOptions = {}) {
  const network = new Network();
  const from = new TestVm(network, { release, workload, ...source });
  const to = new TestVm(network, { release, incoming: 'in', ...target });
  await from.switchOn('events', 'return-path');
  await to.switchOn('events');
  return { network, from, to };
}

/** A line whose writes are noted. */
const watchWrites = (line: Connection, note: (bytes: Uint8Array) => void): Connection =>
  new (class extends WrappedConnection {
    override write(bytes: Uint8Array): Promise<void> {
      note(bytes);
      return super.write(bytes);
    }
  })(line);

/** The source writes faster than its line takes. */
const slow = { 'max-bandwidth': MiB };

describe.each(['7.2', '9.0', '10.0'] as const)('a migration between two machines, QEMU %s', (release) => {
  it('moves the guest, with the events in order', async () => {
    const { from, to } = await makePair(release, {}, {});
    await from.execute('migrate', { uri: 'unix:in' });
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    expect(from.events.slice(0, 3)).toEqual(['MIGRATION setup', 'MIGRATION_PASS 1', 'MIGRATION active']);
    const device = release === '10.0' ? ['MIGRATION device'] : [];
    expect(withoutPasses(from.events)).toEqual([
      ...['MIGRATION setup', 'MIGRATION active', 'STOP', ...device, 'MIGRATION completed'],
    ]);
    expect(withoutPasses(to.events).slice(-3)).toEqual(['MIGRATION active', 'RESUME', 'MIGRATION completed']);
    expect(await from.execute('query-status')).toMatchObject({ status: 'postmigrate', running: false });
    expect(await to.execute('query-status')).toMatchObject({ status: 'running', running: true });
    expect(await to.execute('query-migrate')).toEqual({ status: 'completed' });
    expect((await to.ram()).equals(await from.ram())).toBe(true);
  });
});

describe('a background snapshot', () => {
  it('leaves the guest running at the source, and takes it as it was at STOP', async () => {
    const network = new Network();
    const from = new TestVm(network, { release: '10.0', workload });
    const to = new TestVm(network, { release: '10.0', incoming: 'in' });
    await from.switchOn('events', 'background-snapshot');
    await to.switchOn('events');
    const before = await from.ram();
    await from.execute('migrate', { uri: 'unix:in' });
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    expect(from.events).toEqual([...['MIGRATION setup', 'MIGRATION active', 'STOP', 'RESUME', 'MIGRATION completed']]);
    expect(await from.execute('query-status')).toMatchObject({ status: 'running', running: true });
    expect(await to.execute('query-status')).toMatchObject({ status: 'running', running: true });
    expect((await to.ram()).length).toBe(before.length);
    expect(await from.execute('query-migrate')).toMatchObject({
      status: 'completed',
      ram: { 'dirty-sync-count': 0, 'dirty-pages-rate': 0, remaining: 0 },
    });
    // It can be made again.
    const other = new TestVm(network, { release: '10.0', incoming: 'other' });
    await other.switchOn('events');
    await from.execute('migrate', { uri: 'unix:other' });
    await other.event('MIGRATION completed');
    expect(await from.execute('query-status')).toMatchObject({ running: true });
  });
});

describe('release-ram', () => {
  it.each([
    ['in postcopy, frees the pages at the source', true],
    ['without postcopy, leaves them', false],
  ])('%s', async (_, isPostcopy) => {
    const { network, from, to } = await makePair('10.0');
    await to.switchOn('postcopy-ram');
    await from.switchOn('postcopy-ram', 'release-ram');
    await from.execute('migrate-set-parameters', { 'max-bandwidth': isPostcopy ? MiB : 0 });
    await network.clock.sleep(500);
    await from.execute('migrate', { uri: 'unix:in' });
    if (isPostcopy) {
      await from.event('MIGRATION active');
      await from.execute('migrate-start-postcopy');
    }
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    await to.execute('stop');
    const left = await from.ram();
    expect((await to.ram()).some((byte) => byte !== 0)).toBe(true);
    expect(left.every((byte) => byte === 0)).toBe(isPostcopy);
    if (!isPostcopy) expect(left.equals(await to.ram())).toBe(true);
  });
});

describe('postcopy-blocktime', () => {
  /** Migrates in postcopy, a quarter of a second or more. Resolves with the time from RESUME to the end, in ms. */
  async function migrate({ network, from, to }: Awaited<ReturnType<typeof makePair>>, stops = false) {
    await from.switchOn('postcopy-ram');
    await from.execute('migrate-set-parameters', { ...slow, 'max-postcopy-bandwidth': 4 * MiB });
    await network.clock.sleep(3000);
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION active');
    await from.execute('migrate-start-postcopy');
    await to.event('MIGRATION postcopy-active');
    const begin = network.clock.now();
    expect(await to.execute('query-migrate')).not.toHaveProperty('postcopy-blocktime');
    if (stops) await to.execute('stop');
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    return network.clock.now() - begin;
  }

  it.each(['7.2', '10.0'] as const)('is how long the guest ran without its RAM, %s', async (release) => {
    const pair = await makePair(release, {}, { expected: { vcpus: 2 } });
    await pair.to.switchOn('postcopy-ram', 'postcopy-blocktime');
    const ms = await migrate(pair);
    const found = await pair.to.execute('query-migrate');
    const blocked = found['postcopy-blocktime'] as number;
    expect(found).toEqual({
      status: 'completed',
      'postcopy-blocktime': blocked,
      'postcopy-vcpu-blocktime': [blocked, blocked],
    });
    expect(blocked).toBeGreaterThan(250);
    expect(Math.abs(blocked - ms)).toBeLessThan(5);
    // It stays when the capability is gone.
    const off = [{ capability: 'postcopy-blocktime', state: false }];
    await pair.to.execute('migrate-set-capabilities', { capabilities: off });
    await pair.network.clock.sleep(1000);
    expect(await pair.to.execute('query-migrate')).toEqual(found);
  });

  it('is 0 for a guest that does not run', async () => {
    const pair = await makePair('10.0', {}, { isPaused: true });
    await pair.to.switchOn('postcopy-ram', 'postcopy-blocktime');
    await migrate(pair);
    expect(await pair.to.execute('query-migrate')).toMatchObject({
      'postcopy-blocktime': 0,
      'postcopy-vcpu-blocktime': [0],
    });
  });

  it('does not count the time for which the guest is stopped', async () => {
    const pair = await makePair('10.0');
    await pair.to.switchOn('postcopy-ram', 'postcopy-blocktime');
    expect(await migrate(pair, true)).toBeGreaterThan(250);
    const { 'postcopy-blocktime': blocked } = await pair.to.execute('query-migrate');
    expect(blocked).toBeLessThan(100);
  });

  it.each([
    ['without the capability', ['postcopy-ram']],
    ['without postcopy', ['postcopy-blocktime']],
  ])('is not there %s', async (_, capabilities) => {
    const pair = await makePair('10.0');
    await pair.to.switchOn(...capabilities);
    if (capabilities.includes('postcopy-ram')) await migrate(pair);
    else {
      await pair.from.execute('migrate', { uri: 'unix:in' });
      await pair.to.event('MIGRATION completed');
    }
    expect(await pair.to.execute('query-migrate')).toEqual({ status: 'completed' });
  });
});

describe('a guest that arrived', () => {
  it('goes on to a third machine, and back', async () => {
    const { network, from, to } = await makePair();
    await from.execute('migrate', { uri: 'unix:in' });
    await to.event('MIGRATION completed');
    const third = new TestVm(network, { incoming: 'third' });
    await third.switchOn('events');
    await to.switchOn('return-path');
    await to.execute('migrate', { uri: 'unix:third' });
    await third.event('MIGRATION completed');
    expect((await third.ram()).equals(await from.ram())).toBe(true);
    expect(await third.execute('query-status')).toMatchObject({ running: true });
    await expect(to.execute('migrate', { uri: 'unix:x' })).rejects.toThrow(
      "Can't migrate the vm that was paused due to previous migration",
    );
  });

  it.each([
    ['paused', ['stop'], 'paused'],
    ['prelaunch', [], 'prelaunch'],
  ])('stays %s', async (_, commands, status) => {
    const { from, to } = await makePair('9.0', { isPaused: status === 'prelaunch' });
    for (const command of commands) await from.execute(command);
    await from.execute('migrate', { uri: 'unix:in' });
    await to.event('MIGRATION completed');
    expect(await to.execute('query-status')).toMatchObject({ status, running: false });
    expect([from.events, to.events].flat().filter((event) => event === 'RESUME')).toEqual([]);
    await to.execute('cont');
    expect(await to.execute('query-status')).toMatchObject({ status: 'running' });
  });

  it('does not start if the machine was told so while it waited', async () => {
    const { from, to } = await makePair();
    expect(await to.execute('query-status')).toMatchObject({ status: 'inmigrate', running: false });
    await to.execute('stop');
    await from.execute('migrate', { uri: 'unix:in' });
    await to.event('MIGRATION completed');
    expect(await to.execute('query-status')).toMatchObject({ status: 'paused', running: false });
  });
});

describe('pause-before-switchover', () => {
  it('waits for migrate-continue, with the guest stopped', async () => {
    const { from, to } = await makePair();
    await from.switchOn('pause-before-switchover');
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION pre-switchover');
    expect(await from.execute('query-status')).toMatchObject({ status: 'finish-migrate', running: false });
    await expect(from.execute('cont')).rejects.toThrow('Migration is not finalized yet');
    await expect(from.execute('migrate-continue', { state: 'active' })).rejects.toThrow(
      'Migration not in expected state: pre-switchover',
    );
    expect(await from.execute('query-yank')).toContainEqual({ type: 'migration' });
    await from.execute('migrate-continue', { state: 'pre-switchover' });
    await to.event('MIGRATION completed');
    const end = ['STOP', 'MIGRATION pre-switchover', 'MIGRATION device', 'MIGRATION completed'];
    expect(withoutPasses(from.events).slice(-4)).toEqual(end);
  });
});

describe('a migration that is cancelled', () => {
  it('lets the guest run on, and the next one goes', async () => {
    const { network, from, to } = await makePair();
    await from.execute('migrate-set-parameters', slow);
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION active');
    await expect(from.execute('migrate', { uri: 'unix:in' })).rejects.toThrow(
      "There's a migration process in progress",
    );
    await expect(from.execute('migrate-set-capabilities', { capabilities: [] })).rejects.toThrow('in progress');
    await from.execute('migrate_cancel');
    await from.event('MIGRATION cancelled');
    expect(await from.execute('query-migrate')).toEqual({ status: 'cancelled' });
    expect(await from.execute('query-status')).toMatchObject({ running: true });
    await to.event('MIGRATION failed');
    expect(await to.incoming?.ended).toBe('failed');
    const again = new TestVm(network, { incoming: 'again' });
    await again.switchOn('events');
    await from.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
    await from.execute('migrate', { uri: 'unix:again' });
    await again.event('MIGRATION completed');
    expect((await again.ram()).equals(await from.ram())).toBe(true);
  });

  it('in pre-switchover: RESUME comes before cancelled', async () => {
    const { from } = await makePair();
    await from.switchOn('pause-before-switchover');
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION pre-switchover');
    await from.execute('migrate_cancel');
    await from.event('MIGRATION cancelled');
    expect(withoutPasses(from.events).slice(-3)).toEqual(['MIGRATION cancelling', 'RESUME', 'MIGRATION cancelled']);
  });
});

describe('a migration that fails', () => {
  it('if nobody listens: an event, and the command has succeeded', async () => {
    const from = new TestVm(new Network(), { workload });
    await from.switchOn('events');
    expect(await from.execute('migrate', { uri: 'unix:nobody' })).toEqual({});
    await from.event('MIGRATION failed');
    expect(from.events).toEqual(['MIGRATION setup', 'MIGRATION failed']);
    expect(await from.execute('query-migrate')).toEqual({
      ...{ status: 'failed', 'error-desc': "Failed to connect to 'nobody': Connection refused" },
    });
    expect(await from.execute('query-status')).toMatchObject({ running: true });
  });

  it.each<[string, TestVmOptions, TestVmOptions, string]>([
    [
      'of another machine type',
      {},
      { expected: { machine: 'pc' } },
      "Machine type received is 'none' and local is 'pc'",
    ],
    [
      'of another size',
      {},
      { expected: { memory: 4 * MiB } },
      'Size mismatch: ram: 0x800000 != 0x400000: Invalid argument',
    ],
    [
      'of another UUID',
      { uuid: '1'.repeat(32) },
      { uuid: '2'.repeat(32) },
      `UUID received is 11111111-1111-1111-1111-${'1'.repeat(12)} and local is 22222222-2222-2222-2222-${'2'.repeat(12)}`,
    ],
  ])('if the source is %s', async (_, source, target, text) => {
    const { from, to } = await makePair('9.0', source, target);
    await from.switchOn('validate-uuid');
    await from.execute('migrate', { uri: 'unix:in' });
    await Promise.all([from.event('MIGRATION failed'), to.event('MIGRATION failed')]);
    expect(to.reports).toContain(text);
    expect(await from.execute('query-status')).toMatchObject({ running: true });
    expect(await to.incoming?.ended).toBe('failed');
    expect(withoutPasses(to.events)).toEqual(['MIGRATION active', 'MIGRATION failed']);
  });

  it('if its lines are yanked', async () => {
    const { from } = await makePair();
    await from.execute('migrate-set-parameters', slow);
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION active');
    await from.execute('yank', { instances: [{ type: 'migration' }] });
    await from.event('MIGRATION failed');
    expect(await from.execute('query-status')).toMatchObject({ running: true });
    await expect(from.execute('yank', { instances: [{ type: 'migration' }] })).rejects.toThrow('Instance not found');
  });
});

describe('dirty bitmaps', () => {
  const disk = async (id: string) => {
    const store = new MemoryFile(id, new Uint8Array(1 << 20));
    return new BlockNodes([await BlockNode.open({ id, path: id, store, allocatedBytes: () => 0 })]);
  };

  it('arrive at the disk of the same name, and are busy on their way', async () => {
    const [nodes, there] = [await disk('disk0'), await disk('disk0')];
    const { from, to } = await makePair('10.0', { nodes }, { nodes: there });
    await from.switchOn('dirty-bitmaps', 'pause-before-switchover');
    await from.execute('block-dirty-bitmap-add', { node: 'disk0', name: 'b0' });
    nodes.get('disk0')?.bitmap('b0').mark(70_000, 140_000);
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION pre-switchover');
    await expect(from.execute('block-dirty-bitmap-clear', { node: 'disk0', name: 'b0' })).rejects.toThrow(
      "Bitmap 'b0' is currently in use by another operation and cannot be used",
    );
    await from.execute('migrate-continue', { state: 'pre-switchover' });
    await to.event('MIGRATION completed');
    expect(there.get('disk0')?.bitmap('b0').bits).toEqual(nodes.get('disk0')?.bitmap('b0').bits);
    await from.event('MIGRATION completed');
    await from.execute('block-dirty-bitmap-clear', { node: 'disk0', name: 'b0' });
  });

  it('come after the pages in postcopy', async () => {
    const [nodes, there] = [await disk('disk0'), await disk('disk0')];
    const { network, from, to } = await makePair('10.0', { nodes }, { nodes: there });
    const sent: Buffer[] = [];
    network.wrap = (line) => watchWrites(line, (bytes) => sent.push(Buffer.from(bytes)));
    await to.switchOn('postcopy-ram');
    await from.switchOn('dirty-bitmaps', 'postcopy-ram');
    await from.execute('migrate-set-parameters', slow);
    for (const name of ['other', 'bits-of-disk0'])
      await from.execute('block-dirty-bitmap-add', { node: 'disk0', name });
    nodes.get('disk0')?.bitmap('bits-of-disk0').mark(70_000, 140_000);
    await network.clock.sleep(3000);
    await from.execute('migrate', { uri: 'unix:in' });
    await from.event('MIGRATION active');
    await from.execute('migrate-start-postcopy');
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    expect(from.events).toContain('MIGRATION postcopy-active');
    const bitmap = there.get('disk0')?.bitmap('bits-of-disk0');
    expect([bitmap?.isBusy, bitmap?.count]).toEqual([false, 131_072]);
    expect(bitmap?.bits).toEqual(nodes.get('disk0')?.bitmap('bits-of-disk0').bits);
    // START comes before RAM; the bits are the last thing of all.
    const stream = Buffer.concat(sent);
    expect(stream.indexOf('bits-of-disk0')).toBeLessThan(1000);
    expect(stream.lastIndexOf('bits-of-disk0')).toBeGreaterThan(stream.length - 100);
  });

  it('fail the migration if one of that name exists, and the guest runs on', async () => {
    const { from, to } = await makePair('10.0', { nodes: await disk('disk0') }, { nodes: await disk('disk0') });
    await from.switchOn('dirty-bitmaps');
    for (const vm of [from, to]) await vm.execute('block-dirty-bitmap-add', { node: 'disk0', name: 'b0' });
    await from.execute('migrate', { uri: 'unix:in' });
    await Promise.all([from.event('MIGRATION failed'), to.event('MIGRATION failed')]);
    expect(to.reports).toContain("Bitmap with the same name ('b0') already exists on destination");
    expect(await from.execute('query-status')).toMatchObject({ running: true });
  });
});

describe('migrate-incoming', () => {
  it('only after -incoming defer, and once', async () => {
    const network = new Network();
    const to = new TestVm(network, { incoming: 'defer' });
    expect(await to.execute('query-migrate')).toEqual({});
    await expect(to.execute('migrate-incoming', { uri: 'foo:' })).rejects.toThrow('unknown migration protocol: foo:');
    await to.execute('migrate-incoming', { uri: 'unix:in' });
    expect(await to.execute('query-migrate')).toEqual({
      ...{ status: 'setup', 'socket-address': [{ type: 'unix', path: 'in' }] },
    });
    await expect(to.execute('migrate-incoming', { uri: 'unix:in2' })).rejects.toThrow(
      'The incoming migration has already been started',
    );
    await expect(to.execute('migrate', { uri: 'unix:x' })).rejects.toThrow(
      'Guest is waiting for an incoming migration',
    );
    await expect(new TestVm(network).execute('migrate-incoming', { uri: 'unix:x' })).rejects.toThrow(
      "'-incoming' was not specified on the command line",
    );
  });
});

describe('migrate', () => {
  it.each<[string, string[], object, object, string]>([
    ['neither uri nor channels', [], {}, {}, "need either 'uri' or 'channels' argument"],
    ['an empty list of channels', [], {}, { channels: [] }, "need either 'uri' or 'channels' argument"],
    [
      'mapped-ram over a socket',
      ['mapped-ram'],
      {},
      { uri: 'unix:x' },
      'Migration requires seekable transport (e.g. file)',
    ],
    ['multifd over exec', ['multifd'], {}, { uri: 'exec:cat' }, 'Migration requires multi-channel URIs (e.g. tcp)'],
    ['resume', [], {}, { uri: 'unix:x', resume: true }, 'Cannot resume if there is no paused migration'],
    [
      'mode cpr-reboot with postcopy',
      ['postcopy-ram'],
      { mode: 'cpr-reboot' },
      { uri: 'unix:x' },
      'Cannot use postcopy with CPR',
    ],
    ['TLS with mapped-ram', ['mapped-ram'], { 'tls-creds': 'x' }, { uri: 'file:x' }, 'Cannot use TLS with mapped-ram'],
    ['rdma', [], {}, { uri: 'rdma:127.0.0.1:1' }, 'RDMA ERROR: could not create CM channel'],
    ['a bad URI', [], {}, { uri: '-' }, 'unknown migration protocol: -'],
  ])('refuses %s', async (_, capabilities, parameters, given, text) => {
    const from = new TestVm(new Network());
    await from.execute('migrate-set-parameters', { ...parameters });
    await from.switchOn('events', ...capabilities);
    await expect(from.execute('migrate', { ...given })).rejects.toThrow(text);
    expect(await from.execute('query-status')).toMatchObject({ running: true });
  });
});
