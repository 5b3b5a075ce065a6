/** `vmferry qmp` with a real QEMU. */
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { runCli } from '../run-cli.ts';
import { LiveCommand } from './live-command.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

describe.skipIf(lacksQemu('7.2', '10.0'))('qmp', () => {
  test.each(qemuVersions)('QEMU %s', async (version) => {
    const dir = Qemu.makeDir();
    const path = `${dir}/second`;
    const args = ['-M', 'none', '-m', '16', '-qmp', `unix:${path},server=on,wait=off`];
    const qemu = await Qemu.start({ version, args, dir });
    try {
      const { stdout } = await runCli(['qmp', path, 'query-status']);
      expect(JSON.parse(stdout)).toMatchObject({ status: 'running' });
      const stop = await runCli(['qmp', path, 'stop', '--json']);
      expect(stop.stdout).toMatch(/"event": "STOP"\}\n\{\}\n$/);
      const wrong = await runCli(['qmp', path, 'migrate-continue', 'state=active']);
      expect([wrong.code, wrong.stderr]).toEqual([3, expect.stringContaining('Migration not in expected state: none')]);
      expect((await runCli(['qmp', path, 'migrate', 'url=x'])).code).toBe(2);
      // The tests themselves hold this one.
      const busy = await runCli(['qmp', `${dir}/qmp`, 'query-status']);
      expect([busy.code, busy.stderr]).toEqual([2, expect.stringContaining('another client holds this monitor')]);
    } finally {
      await qemu.kill();
    }
  });

  test.each(qemuVersions)('--share with QEMU %s', async (version) => {
    const dir = Qemu.makeDir();
    const path = `${dir}/second`;
    const args = ['-M', 'none', '-m', '16', '-qmp', `unix:${path},server=on,wait=off`];
    const qemu = await Qemu.start({ version, args, dir });
    const shared = `${dir}/shared`;
    const connect = async () => QmpClient.connect(await connectTo(parseMigrationUri(`unix:${shared}`)));
    try {
      {
        await using share = new LiveCommand(['qmp', path, '--share', `unix:${shared}`]);
        expect(await share.uri()).toBe(`unix:${shared}`);
        const clients = await Promise.all(Array.from({ length: 5 }, connect));
        // One that never reads, and one that leaves in the middle of a command.
        const stuck = await connectTo(parseMigrationUri(`unix:${shared}`));
        const flood = `{"execute": "qmp_capabilities"}${'{"execute": "query-qmp-schema"}'.repeat(200)}`;
        void stuck.write(new TextEncoder().encode(flood)).catch(() => {});
        const gone = await connectTo(parseMigrationUri(`unix:${shared}`));
        await gone.write(new TextEncoder().encode('{"execute": "qmp_capabilities"}{"execute": "query-qmp-schema"}'));
        gone.destroy();
        const stops = clients.map((client) => client.nextEvent('STOP'));
        await clients[0]?.execute('stop');
        expect(await Promise.all(stops)).toHaveLength(5);
        for (const client of clients) expect(await client.execute('query-status')).toMatchObject({ status: 'paused' });
        await expect(clients[1]?.execute('nope')).rejects.toThrow('The command nope has not been found');
        expect((await runCli(['qmp', shared, 'query-version'])).code).toBe(0);
        stuck.destroy();
        share.kill('SIGINT');
        expect((await share.ended).code).toBe(130);
        expect(existsSync(shared)).toBe(false);
      }
      await using share = new LiveCommand(['qmp', path, '--share', `unix:${shared}`]);
      await share.uri();
      const client = await connect();
      await qemu.kill();
      await client.closed;
      const { code, stderr } = await share.ended;
      expect([code, stderr]).toEqual([3, expect.stringContaining('the monitor ended the connection: QEMU has ended')]);
      expect(existsSync(shared)).toBe(false);
    } finally {
      await qemu.kill();
    }
  });
});
