/**
 * A real QEMU migrates into `vmferry receive`, over several transports and with each capability of the data path. RAM in
 * the file equals that of the stopped source, block by block, in a fresh QEMU that loads the file; its guest counts on.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { LiveCommand } from './live-command.ts';
import { expectRunsOn, loadInto } from './load.ts';
import { fillStripes, type Machine, pagesOfOurs, startMachine } from './machine.ts';
import { Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth } from './truth.ts';

interface Case {
  version: QemuVersion;
  machine?: Machine['machine'];
  transport?: 'tcp' | 'unix';
  capabilities?: string[];
  parameters?: Record<string, unknown>;
  /** Migrates in postcopy after the first pass. */
  postcopy?: boolean;
  /** What the command reports. */
  found?: Record<string, unknown>;
  confirmed?: boolean;
  args?: string[];
  type?: string;
  essential?: boolean;
}

const multifd = (channels: number, compression: string) => ({
  capabilities: ['multifd'],
  parameters: { 'multifd-channels': channels, 'multifd-compression': compression },
});

const cases: Record<string, Case> = {};
for (const version of ['7.2', '10.0'] as const) {
  const isNew = version === '10.0';
  const add = (name: string, of: Omit<Case, 'version'>) => {
    cases[`${name}, ${version}`] = { version, ...of };
  };
  add('plain over tcp', { essential: isNew });
  add('plain over unix', { transport: 'unix' });
  add('machine none', { machine: 'none' });
  add('with a return path', { capabilities: ['return-path'], confirmed: true, essential: true });
  add('xbzrle', { capabilities: ['xbzrle', 'return-path'], confirmed: true, essential: !isNew });
  add('auto-converge', { capabilities: ['auto-converge', 'return-path'], confirmed: true });
  add('background-snapshot', { capabilities: ['background-snapshot'] });
  for (const channels of [1, 2, 4, 8, 16]) {
    for (const compression of ['none', 'zlib', 'zstd']) {
      add(`multifd ${channels} ${compression}`, {
        ...multifd(channels, compression),
        found: { channels },
        essential: (channels === 2 && compression !== 'zlib') || (channels === 16 && compression === 'zlib' && isNew),
      });
    }
  }
  add('multifd with a return path over unix', {
    ...{ transport: 'unix', parameters: { 'multifd-channels': 3 }, confirmed: true, essential: true },
    capabilities: ['multifd', 'return-path'],
  });
  add('postcopy', { capabilities: ['postcopy-ram'], postcopy: true, confirmed: true, essential: true });
  add('postcopy that stays precopy', { capabilities: ['postcopy-ram'], confirmed: true });
  add('postcopy-preempt', {
    ...{ capabilities: ['postcopy-ram', 'postcopy-preempt'], postcopy: true, confirmed: true },
    essential: true,
  });
  add('validate-uuid', {
    ...{ capabilities: ['validate-uuid', 'return-path'], confirmed: true },
    args: ['-uuid', '01234567-89ab-cdef-0123-456789abcdef'],
  });
}
cases['switchover-ack, 10.0'] = {
  ...{ version: '10.0', capabilities: ['return-path', 'switchover-ack'], confirmed: true, essential: true },
};
cases['switchover-ack of an old machine type, 10.0'] = {
  ...{ version: '10.0', capabilities: ['return-path', 'switchover-ack'], confirmed: true, essential: true },
  type: 'pc-i440fx-7.2',
};

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const isFull = process.env.VMFERRY_QEMU === 'full';
const chosen = Object.entries(cases).filter(([, { essential }]) => isFull || essential === true);

/** Migrates a guest that dirties memory, stopped before the last pass, and reads its truth. */
async function migrateInto(
  uri: string,
  { qemu, guest }: Awaited<ReturnType<typeof startMachine>>,
  of: Case,
  dir: string,
) {
  const addresses = await findAddresses(qemu);
  const ours = { first: 256, count: 64 };
  await guest?.startDirtying(ours, 'mixed', 2000);
  await qemu.setCapabilities(of.capabilities ?? []);
  await qemu.setParameters({
    'max-bandwidth': of.parameters?.['multifd-compression'] === 'zlib' ? 200_000 : 2 << 20,
    ...of.parameters,
  });
  await qemu.execute('migrate', { uri });
  if (of.postcopy === true) await qemu.execute('migrate-start-postcopy');
  else if (of.capabilities?.includes('background-snapshot') !== true) {
    await qemu.waitForStatus('active');
    await guest?.stop();
  }
  await qemu.waitForMigration();
  if (of.capabilities?.includes('background-snapshot') === true) return undefined;
  return readTruth(qemu, dir, addresses);
}

describe.skipIf(lacksQemu('7.2', '10.0'))('a QEMU migrates into a file', () => {
  test.each(chosen)('%s', async (_, of) => {
    const machine: Machine = {
      ...{ version: of.version, machine: of.machine ?? 'bare' },
      ...(of.args === undefined ? {} : { args: of.args }),
      ...(of.type === undefined ? {} : { type: of.type }),
    };
    const dir = Qemu.makeDir();
    const out = join(dir, 'guest.mapped-ram');
    const listen = of.transport === 'unix' ? `unix:${join(dir, 'socket')}` : 'tcp:127.0.0.1:0';
    await using command = new LiveCommand(['receive', listen, out, '--json']);
    const running = await startMachine(machine);
    await using qemu = running.qemu;
    await fillStripes(running, pagesOfOurs(machine));
    const truth = await migrateInto(await command.uri(), running, of, dir);
    running.guest?.close();
    const { code, stdout, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      ...{ output: out, confirmed: of.confirmed ?? false, leftOut: [] },
      found: { postcopy: of.postcopy ?? false, ...of.found },
      progress: { status: 'completed' },
    });
    expect(stderr.includes('no return path')).toBe(of.confirmed !== true);
    expect(readdirSync(dir).filter((name) => name.startsWith('.vmferry') || name === 'socket')).toEqual([]);
    await qemu.quit();
    // QEMU 7.2 does not have mapped-ram files, but 10.0 has its machine types.
    const target: Machine =
      of.version === '7.2' && machine.machine === 'bare'
        ? { ...machine, version: '10.0', type: 'pc-i440fx-7.2' }
        : { ...machine, version: '10.0' };
    const loaded = await loadInto({ ...target, route: 'mapped-ram', file: out });
    try {
      if (truth !== undefined) expect(differences(loaded.truth, truth)).toEqual([]);
    } finally {
      loaded.dispose();
    }
    if (machine.machine !== 'none') await expectRunsOn(target, out);
  });

  test('a source that was cancelled leaves nothing, and its guest runs on', async () => {
    const dir = Qemu.makeDir();
    const out = join(dir, 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    const { qemu, guest } = await startMachine({ version: '10.0', machine: 'bare' });
    await using _ = qemu;
    await qemu.setCapabilities(['return-path']);
    await qemu.setParameters({ 'max-bandwidth': 100_000 });
    await qemu.execute('migrate', { uri: await command.uri() });
    await qemu.waitForStatus('active');
    await qemu.execute('migrate_cancel');
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(3);
    expect(JSON.parse(stderr.trim().split('\n').at(-1) as string)).toMatchObject({ error: { guest: 'source' } });
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(dir)).toEqual([]);
    expect(await qemu.execute('query-status')).toMatchObject({ running: true });
    guest?.close();
  });

  const key = '0123456789abcdef0123456789abcdef';
  const tlsCases = {
    'psk, multifd 2 zstd': {
      object: () => `tls-creds-psk,id=tls0,endpoint=server,dir=${directories.psk(`qemu:${key}`)}`,
      source: () => ({ 'qom-type': 'tls-creds-psk', dir: directories.psk(`qemu:${key}`) }),
      capabilities: ['multifd', 'return-path'],
      parameters: { 'multifd-channels': 2, 'multifd-compression': 'zstd' },
    },
    'x509 without a return path': {
      object: () => `tls-creds-x509,id=tls0,endpoint=server,dir=${directories.server()}`,
      source: () => ({ 'qom-type': 'tls-creds-x509', dir: directories.client('client1') }),
      ...{ capabilities: [], parameters: {} },
    },
  };

  test.each(Object.entries(tlsCases))('over TLS: %s', async (_, { object, source, capabilities, parameters }) => {
    for (const version of isFull ? qemuVersions : (['10.0'] as const)) {
      const out = join(Qemu.makeDir(), 'guest.mapped-ram');
      const args = ['receive', 'tcp:127.0.0.1:0', out, '--object', object(), '--tls-creds', 'tls0', '--json'];
      await using command = new LiveCommand(args);
      const { qemu, guest } = await startMachine({ version, machine: 'bare' });
      await using __ = qemu;
      await qemu.execute('object-add', { ...source(), id: 'tls0', endpoint: 'client' });
      await qemu.migrate(await command.uri(), { capabilities, parameters: { 'tls-creds': 'tls0', ...parameters } });
      guest?.close();
      const { code, stderr } = await command.ended;
      expect(code, stderr).toBe(0);
      expect(await runCli(['verify', out])).toMatchObject({ code: 0 });
    }
  });

  test('another PSK key fails at the source, whose guest runs on, and the listening goes on', async () => {
    const out = join(Qemu.makeDir(), 'guest.mapped-ram');
    const object = `tls-creds-psk,id=tls0,endpoint=server,dir=${directories.psk(`qemu:${key}`)}`;
    const args = ['receive', 'tcp:127.0.0.1:0', out, '--object', object, '--tls-creds', 'tls0', '--json'];
    await using command = new LiveCommand(args);
    const uri = await command.uri();
    const { qemu, guest } = await startMachine({ version: '10.0', machine: 'bare' });
    await using _ = qemu;
    for (const [id, text] of Object.entries({ wrong: `qemu:${'f'.repeat(32)}`, right: `qemu:${key}` })) {
      const creds = { 'qom-type': 'tls-creds-psk', id, endpoint: 'client', dir: directories.psk(text) };
      await qemu.execute('object-add', creds);
    }
    await expect(qemu.migrate(uri, { parameters: { 'tls-creds': 'wrong' } })).rejects.toThrow(/TLS handshake failed/);
    expect(await qemu.execute('query-status')).toMatchObject({ running: true });
    await qemu.migrate(uri, { parameters: { 'tls-creds': 'right' } });
    guest?.close();
    expect((await command.ended).code).toBe(0);
  });
});
