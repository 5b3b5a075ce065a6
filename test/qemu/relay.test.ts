/**
 * A real QEMU migrates to another through `vmferry relay`, with each capability of the data path. RAM at the target equals
 * that of the stopped source, and the guest goes on. When one of the three dies, the other two learn of it, and the relay
 * says where the guest is.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { expectCounting } from './expect-counting.ts';
import { equalFiles } from './expect-read.ts';
import { Guest, type PageRange } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { fillStripes, type Machine, pagesOfOurs, startDestination, startMachine } from './machine.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { type Addresses, differences, findAddresses, readTruth } from './truth.ts';
import { waitUntil } from './wait-until.ts';

interface Setup {
  version: QemuVersion;
  capabilities?: string[];
  parameters?: Record<string, unknown>;
  machine?: Partial<Machine>;
  /** Further arguments of the relay. */
  args?: readonly string[];
  /** Where the relay finds the target, given its URI. */
  via?: (target: string) => Promise<string> | string;
}

/** A source whose guest runs, a target that waits, and a relay between them. */
class Between {
  readonly ours: PageRange;

  private constructor(
    readonly setup: Setup,
    readonly machine: Machine,
    readonly source: Qemu,
    readonly guest: Guest,
    readonly target: Qemu,
    readonly addresses: Addresses,
    public relay: LiveCommand,
  ) {
    this.ours = pagesOfOurs(machine);
  }

  static async start(setup: Setup): Promise<Between> {
    const { version, capabilities = [], parameters = {}, via = (uri) => uri } = setup;
    const machine: Machine = { version, machine: 'bare', ...setup.machine };
    const running = await startMachine(machine);
    const target = await startDestination(machine);
    await fillStripes(running, pagesOfOurs(machine));
    const addresses = await findAddresses(running.qemu);
    for (const qemu of [running.qemu, target]) {
      await qemu.setCapabilities(capabilities);
      await qemu.setParameters(parameters);
    }
    const targetUri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri: targetUri });
    const relay = startRelay(await via(targetUri), setup.args);
    return new Between(setup, machine, running.qemu, running.guest as Guest, target, addresses, relay);
  }

  /** Migrates in passes, while the guest dirties its memory. */
  async migrate(isPostcopy = false): Promise<void> {
    const { source, target, guest } = this;
    await this.begin();
    if (isPostcopy) await source.execute('migrate-start-postcopy');
    else await guest.stop();
    await source.setParameters({ 'max-bandwidth': 0 });
    for (const qemu of [source, target]) await qemu.waitForMigration();
  }

  /** Begins a migration that does not end by itself: the guest rewrites its memory faster than it may be sent. */
  async begin(): Promise<void> {
    const { source, guest, ours } = this;
    await guest.startDirtying(ours, 'mixed');
    await source.setParameters({ 'max-bandwidth': 2 << 20, 'downtime-limit': 1 });
    await source.execute('migrate', { uri: await this.relay.uri() });
    const passes = async () => (await source.queryMigrate()).ram?.['dirty-sync-count'] ?? 0;
    await waitUntil('the second pass begins', async () => (await passes()) >= 2);
  }

  /** Expects that the target's RAM is that of the stopped source, and that in `file`, if given. */
  async expectSame(file?: string): Promise<void> {
    const { source, target } = this;
    const truth = await readTruth(source, source.dir, this.addresses);
    const there = join(target.dir, 'there');
    mkdirSync(there);
    expect(differences(await readTruth(target, there, await findAddresses(target)), truth)).toEqual([]);
    if (file === undefined) return;
    const { stdout, stderr } = await runCli(['extract', file, '--all', join(there, 'kept'), '--json']);
    expect(stderr).toBe('');
    const blocks: { idstr: string; path: string }[] = JSON.parse(stdout).blocks;
    expect(blocks.map(({ idstr }) => idstr).sort()).toEqual([...truth.keys()].sort());
    for (const { idstr, path } of blocks)
      expect(await equalFiles(path, truth.get(idstr)?.path ?? ''), idstr).toBe(true);
  }

  /** Expects that the guest runs at the source. */
  async expectGoesOn(): Promise<void> {
    expect(await this.source.execute('query-status')).toMatchObject({ running: true });
    await expectCounting(this.guest, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.guest.close();
    await this.relay[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
    await this.target[Symbol.asyncDispose]();
  }
}

const startRelay = (target: string, args: readonly string[] = []) =>
  new LiveCommand(['relay', 'tcp:127.0.0.1:0', target, '--json', ...args]);

/** The report of a relay that succeeded. */
async function reportOf(relay: LiveCommand): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await relay.ended;
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

/** Expects that a relay failed with exit code 3, and returns its error. */
async function failureOf(relay: LiveCommand, code = 3): Promise<Record<string, unknown>> {
  const end = await relay.ended;
  expect(end.stdout).toBe('');
  expect(end.code, end.stderr).toBe(code);
  const lines = end.stderr.trimEnd().split('\n');
  return JSON.parse(lines.at(-1) as string).error;
}

const multifd = (channels: number, compression: string) => ({
  'multifd-channels': channels,
  'multifd-compression': compression,
});

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
