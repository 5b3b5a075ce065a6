/**
 * Each capability and mode of QEMU that changes how a migration goes, through `receive` into a file that a fresh QEMU loads,
 * from there through `send` into another, and through `relay`. What belongs to the guest is there each time, and the guest
 * goes on counting.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TlsDirectories } from '../tls-directories.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { type Mode, Play, type PlaySetup } from './live-play.ts';
import { type Machine, pagesOfOurs, startDestination } from './machine.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const directories = new TlsDirectories();
afterAll(() => directories.remove());

interface Case extends Mode, Pick<PlaySetup, 'stands' | 'ballast' | 'tls'> {
  machine?: Partial<Machine> | (() => Promise<Partial<Machine>>);
  /** Not with the others. */
  only?: QemuVersion;
  /** Capabilities that the QEMU needs that takes the guest from vmferry. */
  loads?: string[];
  prepare?: (source: Qemu) => Promise<void>;
  /** While the migration runs. */
  during?: (play: Play) => Promise<void>;
  /** Looks at a QEMU that has taken the guest. */
  check?: (qemu: Qemu) => Promise<void>;
  /** The source goes on with its guest. */
  copies?: boolean;
  essential?: boolean;
}

type BlockNode = { 'node-name': string; 'dirty-bitmaps'?: { name: string; count: number; persistent: boolean }[] };

/** The dirty bitmaps of the disk. */
const bitmapsOf = async (qemu: Qemu) =>
  (await qemu.execute<BlockNode[]>('query-named-block-nodes'))
    .find((node) => node['node-name'] === 'disk')
    ?.['dirty-bitmaps']?.map(({ name, count, persistent }) => `${name} ${count}${persistent ? ' persistent' : ''}`)
    .sort();

const disk: Partial<Machine> = { args: ['-blockdev', 'null-co,node-name=disk,size=16777216,read-zeroes=on'] };

const addBitmaps =
  (persistent: boolean) =>
  async (source: Qemu): Promise<void> => {
    const add = (name: string, granularity: number) =>
      source.execute('block-dirty-bitmap-add', { node: 'disk', name, granularity, persistent });
    await add('first', 65536);
    await source.hmp('qemu-io disk "write 1M 200k"');
    await add('second', 4096);
    await source.hmp('qemu-io disk "write 3M 9k"');
  };

/** A disk that keeps its bitmaps. Each QEMU has its own, as if its content were mirrored. */
let image: Promise<string> | undefined;
async function qcow2(): Promise<Partial<Machine>> {
  image ??= makeImage();
  return {
    files: { 'disk.qcow2': await image },
    args: ['-blockdev', 'qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2'],
  };
}

async function makeImage(): Promise<string> {
  const dir = Qemu.makeDir();
  const path = join(dir, 'empty.qcow2');
  writeFileSync(path, '');
  await using qemu = await Qemu.start({ version: '10.0', args: ['-M', 'none', '-nodefaults'] });
  await qemu.execute('blockdev-add', { driver: 'file', 'node-name': 'file', filename: path });
  const options = { driver: 'qcow2', file: 'file', size: 16 << 20 };
  await qemu.execute('blockdev-create', { 'job-id': 'create', options });
  const job = async () => (await qemu.execute<{ status: string; error?: string }[]>('query-jobs'))[0];
  await waitUntil('the image is there', async () => (await job())?.status === 'concluded');
  expect((await job())?.error).toBeUndefined();
  return path;
}

const uuid = '01234567-89ab-cdef-0123-456789abcdef';
const key = '0123456789abcdef0123456789abcdef';
const psk = () => ({ 'qom-type': 'tls-creds-psk', dir: directories.psk(`qemu:${key}`) });
const x509 = (endpoint: 'client' | 'server') => ({
  ...{
    'qom-type': 'tls-creds-x509',
    dir: endpoint === 'server' ? directories.server() : directories.client('client1'),
  },
});

const rp = ['return-path'];
const multifd = { 'multifd-channels': 2, 'multifd-compression': 'zstd' };
/** The guest writes faster than it may be sent. */
const endless = { ballast: { first: 280, count: 200 }, parameters: { 'max-bandwidth': 1 << 20, 'downtime-limit': 1 } };

/** Lets an endless migration end. */
const letGo = (play: Play) => play.source?.setParameters({ 'max-bandwidth': 0, 'downtime-limit': 60_000 });

const cases: Record<string, Case> = {
  'dirty-bitmaps': {
    ...{ capabilities: ['dirty-bitmaps'], sourceCapabilities: rp, confirms: true, machine: disk, essential: true },
    ...{ loads: ['dirty-bitmaps'], prepare: addBitmaps(false) },
    check: async (qemu) => expect(await bitmapsOf(qemu)).toEqual(['first 327680', 'second 12288']),
  },
  'dirty-bitmaps that persist in qcow2': {
    ...{ capabilities: ['dirty-bitmaps'], sourceCapabilities: rp, confirms: true, machine: qcow2 },
    ...{ loads: ['dirty-bitmaps'], prepare: addBitmaps(true) },
    check: async (qemu) =>
      expect(await bitmapsOf(qemu)).toEqual(['first 327680 persistent', 'second 12288 persistent']),
  },
  'pause-before-switchover': {
    ...{ capabilities: rp, sourceCapabilities: ['pause-before-switchover'], confirms: true, essential: true },
    during: async ({ source }) => {
      await source?.waitForStatus('pre-switchover');
      expect(await source?.execute('query-status')).toMatchObject({ running: false });
      await source?.execute('migrate-continue', { state: 'pre-switchover' });
    },
  },
  'auto-converge': {
    ...{ capabilities: rp, sourceCapabilities: ['auto-converge'], confirms: true, ...endless },
    during: async (play) => {
      const throttle = async () => Number((await play.source?.queryMigrate())?.['cpu-throttle-percentage'] ?? 0);
      // It rises by its increment.
      await waitUntil('the source throttles its guest more', async () => (await throttle()) >= 30);
      await letGo(play);
    },
  },
  'release-ram': { capabilities: ['release-ram', ...rp], confirms: true, stands: 'still' },
  'background-snapshot': {
    ...{ capabilities: [], sourceCapabilities: ['background-snapshot'], stands: 'for a moment', copies: true },
    during: async ({ source, guest, machine, eventsBefore: from }) => {
      await source?.event('RESUME', { from });
      await guest?.dirty(pagesOfOurs(machine), 'mixed', 1);
    },
  },
  'validate-uuid': {
    ...{ capabilities: ['validate-uuid', ...rp], confirms: true, machine: { args: ['-uuid', uuid] } },
  },
  'postcopy with psk': { capabilities: ['postcopy-ram'], postcopy: true, confirms: true, tls: psk, essential: true },
  'postcopy-preempt with psk': {
    ...{ capabilities: ['postcopy-ram', 'postcopy-preempt'], postcopy: true, confirms: true, tls: psk },
  },
  'postcopy with x509': { capabilities: ['postcopy-ram'], postcopy: true, confirms: true, tls: x509 },
  'multifd with psk': { capabilities: ['multifd', ...rp], parameters: multifd, confirms: true, tls: psk },
  'multifd with x509': { capabilities: ['multifd', ...rp], parameters: multifd, confirms: true, tls: x509 },
  'mode cpr-reboot': {
    ...{ capabilities: rp, parameters: { mode: 'cpr-reboot' }, confirms: true, only: '10.0', stands: 'still' },
  },
};
for (const detection of ['none', 'legacy', 'multifd']) {
  const parameters = { 'zero-page-detection': detection };
  const of = { confirms: true, only: '10.0' } as const;
  cases[`multifd, zero-page-detection ${detection}`] = {
    ...{ ...of, capabilities: ['multifd', ...rp], parameters: { ...parameters, ...multifd } },
    essential: detection === 'none',
  };
  if (detection === 'multifd') continue;
  cases[`zero-page-detection ${detection}`] = { ...of, capabilities: rp, parameters };
}

/** A QEMU that takes the file. */
const takes = (machine: Machine): Machine =>
  machine.version === '7.2' ? { ...machine, version: '10.0', type: 'pc-i440fx-7.2' } : machine;

/** Requires that the guest that arrived is whole, and goes on. */
async function expectArrived(qemu: Qemu, { check, stands }: Case): Promise<void> {
  await check?.(qemu);
  const guest = await Guest.resume(qemu);
  try {
    // A guest that wrote at the source goes on without being told.
    if (stands !== undefined) await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
    await expectCounting(guest, 0);
  } finally {
    guest.close();
  }
}

async function play(verb: 'receive' | 'relay', version: QemuVersion, of: Case): Promise<Play> {
  const { stands, ballast, tls } = of;
  const machine = (typeof of.machine === 'function' ? await of.machine() : of.machine) ?? {};
  const started = await Play.start({
    ...{ verb, version, mode: of, machine, ...(stands && { stands }), ...(ballast && { ballast }), tls },
  });
  try {
    await of.prepare?.(started.source as Qemu);
    await started.begin();
    await of.during?.(started);
    await started.expectTruth(await started.outcome(), [0], verb);
    return started;
  } catch (error) {
    await started[Symbol.asyncDispose]();
    throw error;
  }
}

const versions: readonly QemuVersion[] = ['7.2', '10.0'];
const all = Object.entries(cases).flatMap(([name, of]) =>
  versions
    .filter((version) => (of.only ?? version) === version)
    .map((version) => [`${name}, ${version}`, version, of] as const),
);
const chosen = all.filter(([, version, { essential }]) => isFull || (essential === true && version === '10.0'));

describe.skipIf(lacksQemu(...versions))('a capability of the source', () => {
  test.each(chosen)('%s: into a file, and from there', async (_, version, of) => {
    await using received = await play('receive', version, of);
    const machine = takes(received.machine);
    await using loaded = await startDestination(machine);
    await loaded.setCapabilities(['mapped-ram', ...(of.loads ?? [])]);
    await loaded.execute('migrate-incoming', { uri: `file:${received.out}` });
    await loaded.waitForMigration();
    await expectArrived(loaded, of);

    await using target = await startDestination(received.machine);
    await target.setCapabilities(of.loads ?? []);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri });
    await using command = new LiveCommand(['send', received.out, uri, '--json']);
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    await target.waitForMigration();
    await expectArrived(target, of);
  });

  test.each(chosen)('%s: through a relay', async (_, version, of) => {
    await using relayed = await play('relay', version, of);
    await expectArrived(relayed.target as Qemu, of);
  });
});
