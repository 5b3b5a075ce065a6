/** migrationEnded with real QEMUs: before they listen, after earlier results, and on both sides. */
import { describe, expect, test } from 'vitest';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { migrationEnded } from '../../src/qmp/migration-ended.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

describe.skipIf(lacksQemu('7.2', '10.0')).each(qemuVersions)('with QEMU %s', (version) => {
  const machine = ['-M', 'none', '-m', '16'];

  test('from before QEMU listens, over earlier results, to the next end', async () => {
    const dir = Qemu.makeDir();
    const path = `${dir}/second`;
    const connect = () => connectTo(parseMigrationUri(`unix:${path}`), {});
    const first = migrationEnded(connect);
    await using qemu = await Qemu.start({
      version,
      args: [...machine, '-qmp', `unix:${path},server=on,wait=off`],
      dir,
    });
    const eventsAreOn = async () =>
      (await qemu.execute<{ capability: string; state: boolean }[]>('query-migrate-capabilities')).some(
        ({ capability, state }) => capability === 'events' && state,
      );
    await waitUntil('events are on', eventsAreOn);
    await qemu.execute('migrate', { uri: `unix:${dir}/nobody` });
    expect(await first).toMatchObject({
      status: 'failed',
      info: { 'error-desc': expect.stringContaining('No such file or directory') },
    });
    await qemu.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: false }] });
    const second = migrationEnded(connect);
    await waitUntil('events are on', eventsAreOn);
    await qemu.migrate('exec:cat > /dev/null');
    const { status, info } = await second;
    expect([status, info.status, info.ram?.remaining]).toEqual(['completed', 'completed', 0]);
    expect(info['total-time']).toBeGreaterThan(0);
  });

  test('of a migration that runs already, with events off', async () => {
    const dir = Qemu.makeDir();
    const path = `${dir}/second`;
    await using qemu = await Qemu.start({
      version,
      args: [...machine, '-qmp', `unix:${path},server=on,wait=off`],
      dir,
    });
    await qemu.setCapabilities(['pause-before-switchover']);
    await qemu.execute('migrate', { uri: 'exec:cat > /dev/null' });
    await qemu.waitForStatus('pre-switchover');
    const client = await QmpClient.connect(await connectTo(parseMigrationUri(`unix:${path}`), {}));
    const ended = migrationEnded(client);
    // Until it has asked for events, and was refused.
    for (let i = 0; i < 10; i++) await client.execute('query-name');
    expect(await client.execute('query-migrate-capabilities')).toContainEqual({ capability: 'events', state: false });
    await client.execute('migrate_cancel');
    expect(await ended).toMatchObject({ status: 'cancelled', info: { status: 'cancelled' } });
    await client.close();
  });

  test('of a destination that fails and is gone', async () => {
    const dir = Qemu.makeDir();
    const path = `${dir}/second`;
    const args = [...machine, '-qmp', `unix:${path},server=on,wait=off`, '-incoming', 'defer'];
    await using _destination = await Qemu.start({ version, args, dir });
    const client = await QmpClient.connect(await connectTo(parseMigrationUri(`unix:${path}`), {}));
    const ended = migrationEnded(client);
    // A stream that is none.
    await client.execute('migrate-incoming', { uri: 'exec:yes | head -c 65536' });
    expect(await ended).toMatchObject({ status: 'failed' });
  });
});
