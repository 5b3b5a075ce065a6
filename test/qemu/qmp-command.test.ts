/** `vmferry qmp` with a real QEMU. */
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
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
});
