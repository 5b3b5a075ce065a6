/** Strangers at the incoming port of real QEMUs: what `vmferry vm` says then is what they say. */
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { junk, sendJunk } from '../support/junk.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

describe.each(qemuVersions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('that waits for a migration', () => {
    test.each(Object.entries(junk))('ends with 1 when %s comes', async (_, each) => {
      const args = ['-machine', 'none', '-nodefaults', '-incoming', 'tcp:127.0.0.1:0'];
      await using qemu = await Qemu.start({ version, args });
      const ended = once(qemu.child, 'close');
      const { 'socket-address': addresses } = await qemu.queryMigrate();
      const [address] = addresses as { port: string }[];
      const close = await sendJunk(Number(address?.port), each);
      expect((await ended)[0]).toBe(1);
      close();
      const said = qemu.stderr.trim().split('\n');
      expect(said.map((line) => line.replace(/^qemu-system-x86_64: /, ''))).toEqual(each.says);
    });
  });
});
