/**
 * A real QEMU migrates to another through `vmferry relay`, with each capability of the data path. RAM at the target equals
 * that of the stopped source, and the guest goes on. When one of the three dies, the other two learn of it, and the relay
 * says where the guest is.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { Between, failureOf, multifd, reportOf, type Setup, startRelay } from './between.ts';
import { Guest } from './guest.ts';
import type { LiveCommand } from './live-command.ts';
import { startMachine } from './machine.ts';
import { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';

interface Case extends Omit<Setup, 'version'> {
  isPostcopy?: boolean;
  connections?: number;
  isKept?: boolean;
}

const cases: Record<string, Case> = {
  plain: {},
  'xbzrle, return-path, --tee': { capabilities: ['xbzrle', 'return-path'], isKept: true },
  'multifd 2 none, --tee': {
    ...{ capabilities: ['multifd'], parameters: multifd(2, 'none'), connections: 3, isKept: true },
  },
  'multifd 4 zstd, return-path, --tee': {
    ...{ capabilities: ['multifd', 'return-path'], parameters: multifd(4, 'zstd'), connections: 5, isKept: true },
  },
  postcopy: { capabilities: ['postcopy-ram'], isPostcopy: true },
  'postcopy-preempt, --tee': {
    ...{ capabilities: ['postcopy-ram', 'postcopy-preempt'], isPostcopy: true, connections: 2, isKept: true },
  },
};

const isFull = process.env.VMFERRY_QEMU === 'full';
const directories = new TlsDirectories();
afterAll(() => directories.remove());
const key = '0123456789abcdef0123456789abcdef';

describe.each(['7.2', '10.0'] as const)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('to itself through a relay', () => {
    test.each(Object.entries(cases))('%s', async (_, { isPostcopy = false, connections = 1, isKept, ...setup }) => {
      const kept = isKept === true ? join(Qemu.makeDir(), 'kept.mapped-ram') : undefined;
      await using between = await Between.start({ version, ...setup, args: kept === undefined ? [] : ['--tee', kept] });
      await between.migrate(isPostcopy);
      const confirmed = isPostcopy || setup.capabilities?.includes('return-path') === true;
      expect(await reportOf(between.relay)).toMatchObject({ confirmed, postcopy: isPostcopy, connections });
      await between.expectSame(kept);
      const guest = await Guest.resume(between.target);
      await guest.dirty({ first: 256, count: 10 }, 'few-bytes', 2);
      guest.close();
    });

    test('a full disk under --tee does not end the migration', async () => {
      const mount = Qemu.makeDir();
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', mount]).status !== 0) {
        console.warn('skipped: a small tmpfs cannot be mounted here');
        return;
      }
      try {
        const args = ['--tee', join(mount, 'kept.mapped-ram')];
        await using between = await Between.start({ version, capabilities: ['return-path'], args });
        await between.migrate();
        expect(await failureOf(between.relay, 2)).toMatchObject({ guest: 'target', code: 'ENOSPC' });
        expect(readdirSync(mount)).toEqual([]);
        await between.expectSame();
      } finally {
        spawnSync('umount', [mount]);
      }
    });

    test('postcopy is interrupted and recovered, each time through a relay', async () => {
      const capabilities = ['postcopy-ram'];
      await using between = await Between.start({ version, capabilities });
      const { source, target, relay } = between;
      await between.begin();
      await source.setParameters({ 'max-postcopy-bandwidth': 200_000 });
      await source.execute('migrate-start-postcopy');
      await target.waitForStatus('postcopy-active');
      relay.kill('SIGINT');
      expect(await failureOf(relay, 130)).toMatchObject({ guest: 'split', code: 'interrupted' });
      for (const qemu of [source, target]) await qemu.waitForStatus('postcopy-paused');

      const uri = `unix:${join(target.dir, 'recovery')}`;
      await target.execute('migrate-recover', { uri });
      between.relay = startRelay(uri);
      await source.setParameters({ 'max-postcopy-bandwidth': 0 });
      await source.execute('migrate', { uri: await between.relay.uri(), resume: true });
      for (const qemu of [source, target]) await qemu.waitForMigration();
      expect(await reportOf(between.relay)).toMatchObject({ confirmed: true, postcopy: true });
      await between.expectSame();
    });

    test.each([
      ['with', ['return-path'], 'source'],
      ['without', [], 'either'],
    ] as const)('the target is killed, %s a return path: the guest runs on at the source', async (_, names, guest) => {
      await using between = await Between.start({ version, capabilities: [...names] });
      await between.begin();
      await between.target.kill();
      expect(await failureOf(between.relay)).toMatchObject({ guest });
      await expect(between.source.waitForMigration()).rejects.toThrow(/failed/);
      await between.expectGoesOn();
    });

    test('the source cancels, and its guest runs on', async () => {
      await using between = await Between.start({ version, capabilities: ['return-path'] });
      const { source, target, relay } = between;
      await between.begin();
      await source.execute('migrate_cancel');
      expect(await failureOf(relay)).toMatchObject({ guest: 'source' });
      await source.waitForStatus('cancelled');
      await between.expectGoesOn();
      await expect(target.waitForMigration()).rejects.toThrow();
    });

    test('the source is killed: the target fails', async () => {
      await using between = await Between.start({ version, capabilities: ['return-path'] });
      await between.begin();
      await between.source.kill();
      expect(await failureOf(between.relay)).toMatchObject({ guest: 'source' });
      await expect(between.target.waitForMigration()).rejects.toThrow();
    });

    test('two relays in a row, with TLS between them, and a recording', async () => {
      const psk = (endpoint: string) =>
        `tls-creds-psk,id=tls0,endpoint=${endpoint},dir=${directories.psk(`qemu:${key}`)}`;
      const record = Qemu.makeDir();
      let second: LiveCommand | undefined;
      const setup: Setup = {
        ...{ version, capabilities: ['multifd', 'return-path'], parameters: multifd(2, 'zlib') },
        via: (target) => {
          second = startRelay(target, ['--object', psk('server'), '--listen-tls-creds', 'tls0', '--record', record]);
          return second.uri();
        },
        args: ['--object', psk('client'), '--target-tls-creds', 'tls0'],
      };
      await using between = await Between.start(setup);
      await between.migrate();
      for (const relay of [between.relay, second as LiveCommand]) {
        expect(await reportOf(relay)).toMatchObject({ confirmed: true, connections: 3 });
      }
      await between.expectSame();
      expect(readdirSync(record).sort()).toEqual(['channel.0', 'channel.1', 'main', 'return-path']);
      const path = (name: string) => join(record, name);
      const channels = ['channel.0', 'channel.1'].flatMap((name) => ['--channel', path(name)]);
      const verified = await runCli(['verify', path('main'), ...channels, '--return-path', path('return-path')]);
      expect(verified.code, verified.stderr).toBe(0);
    });

    test.skipIf(!isFull && version === '7.2')('a target that cannot be reached: the source fails at once', async () => {
      const running = await startMachine({ version, machine: 'bare' });
      await using relay = startRelay(`unix:${join(running.qemu.dir, 'nobody')}`);
      try {
        await expect(running.qemu.migrate(await relay.uri(), { capabilities: ['return-path'] })).rejects.toThrow(
          /failed/,
        );
        expect(await failureOf(relay)).toMatchObject({
          guest: 'source',
          message: `Failed to connect to '${running.qemu.dir}/nobody': No such file or directory`,
        });
        expect(await running.qemu.execute('query-status')).toMatchObject({ running: true });
      } finally {
        running.guest?.close();
        await running.qemu[Symbol.asyncDispose]();
      }
    });
  });
});
