/**
 * `vmferry vm` and real QEMU, each as source and as destination, driven by QMP alone: RAM arrives as the stopped source has
 * it, a running guest runs on, and a machine with devices goes through a vmferry VM and counts on.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { fillStripes, type Machine, pagesOfOurs, startDestination, startMachine } from './machine.ts';
import { Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { qemuImg } from './qemu-img.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth } from './truth.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const memory = 32 << 20;
const workload = 'write:rate=16M,working-set=8M,pattern=random';

interface Mode {
  capabilities: string[];
  parameters?: Record<string, unknown>;
  /** It goes over to postcopy at once. */
  isPostcopy?: true;
}

const modes: Record<string, Mode> = {
  plain: { capabilities: [] },
  'return path': { capabilities: ['return-path'] },
  xbzrle: { capabilities: ['xbzrle', 'return-path'], parameters: { 'max-bandwidth': 32 << 20 } },
  'multifd zstd': {
    capabilities: ['multifd', 'return-path'],
    parameters: { 'multifd-channels': 4, 'multifd-compression': 'zstd' },
  },
  postcopy: { capabilities: ['postcopy-ram'], parameters: { 'max-bandwidth': 4 << 20 }, isPostcopy: true },
  'postcopy-preempt': {
    capabilities: ['postcopy-ram', 'postcopy-preempt'],
    parameters: { 'max-bandwidth': 4 << 20 },
    isPostcopy: true,
  },
  'multifd zlib': {
    capabilities: ['multifd', 'return-path'],
    parameters: { 'multifd-channels': 2, 'multifd-compression': 'zlib' },
  },
  'auto-converge': {
    capabilities: ['auto-converge', 'return-path'],
    parameters: { 'max-bandwidth': 24 << 20, 'downtime-limit': 100, 'cpu-throttle-initial': 60 },
  },
  'pause-before-switchover': { capabilities: ['pause-before-switchover', 'return-path'] },
};
const quick = new Set(['xbzrle', 'multifd zstd', 'postcopy']);
const chosen = Object.entries(modes).filter(([name]) => isFull || quick.has(name));

async function memoryOf(qemu: Qemu): Promise<Buffer> {
  const filename = join(qemu.dir, 'memory');
  await qemu.execute('pmemsave', { val: 0, size: memory, filename });
  return readFileSync(filename);
}

/** Lets a migration that waits in pre-switchover go on. */
async function goOn(
  { capabilities, isPostcopy }: Mode,
  source: { execute(command: string, given?: object): Promise<unknown> },
) {
  if (isPostcopy) await source.execute('migrate-start-postcopy');
  if (!capabilities.includes('pause-before-switchover')) return;
  const status = async () => ((await source.execute('query-migrate')) as { status?: string }).status;
  await waitUntil('pre-switchover', async () => (await status()) === 'pre-switchover');
  await source.execute('migrate-continue', { state: 'pre-switchover' });
}

const bare = ['-M', 'none', '-m', '32', '-nodefaults'];

describe.each(qemuVersions)('with QEMU %s', (version) => {
  test.skipIf(lacksQemu(version)).each(chosen)('there and back: %s', async (_, mode) => {
    await using from = await VmProcess.start('--memory', '32M', '--workload', workload, '--compat', version);
    await using qemu = await Qemu.start({ version, args: [...bare, '-incoming', 'defer'] });
    await using back = await VmProcess.start('--incoming', 'defer', '--compat', version);
    for (const vm of [from, back]) {
      await vm.switchOn('events', ...mode.capabilities);
      await vm.execute('migrate-set-parameters', mode.parameters);
    }
    await qemu.setCapabilities(mode.capabilities);
    await qemu.setParameters(mode.parameters ?? {});
    const there = `unix:${join(qemu.dir, 'in')}`;
    await qemu.execute('migrate-incoming', { uri: there });
    await from.execute('migrate', { uri: there });
    await goOn(mode, from);
    await from.event('MIGRATION completed');
    await qemu.waitForMigration();
    const truth = readFileSync(await from.saveMemory(memory));
    expect((await memoryOf(qemu)).equals(truth)).toBe(true);
    expect(truth.some((byte) => byte !== 0)).toBe(true);

    await back.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    await qemu.execute('migrate', { uri: await back.incomingUri() });
    await goOn(mode, qemu);
    await back.event('MIGRATION completed');
    expect(readFileSync(await back.saveMemory(memory)).equals(truth)).toBe(true);
    expect(await back.execute('query-status')).toMatchObject({ status: 'running', running: true });
    expect(back.events.slice(-2)).toEqual(['RESUME', 'MIGRATION completed']);
  });
});

const through: QemuVersion[] = isFull ? ['7.2', '10.0'] : ['10.0'];

describe.each(through)('QEMU %s', (version) => {
  test.skipIf(lacksQemu(version))('loads the snapshot of a vmferry VM, and that of QEMU is loaded', async () => {
    const dir = Qemu.makeDir();
    const image = join(dir, 'disk.qcow2');
    await qemuImg(version, 'create', '-q', '-f', 'qcow2', image, '16M');
    await using vm = await VmProcess.start(
      '--memory',
      '32M',
      '--workload',
      workload,
      '--compat',
      version,
      '--drive',
      `id=disk0,file=${image}`,
    );
    await vm.execute('stop');
    const truth = readFileSync(await vm.saveMemory(memory));
    const job = { vmstate: 'disk0', devices: ['disk0'] };
    const concluded = async (who: { execute(command: string, given?: object): Promise<unknown> }, id: string) => {
      const find = async () =>
        ((await who.execute('query-jobs')) as { id: string; status: string; error?: string }[]).find(
          (each) => each.id === id,
        );
      await waitUntil(`job ${id}`, async () => (await find())?.status === 'concluded');
      expect((await find())?.error).toBeUndefined();
    };
    await vm.execute('snapshot-save', { 'job-id': 's1', tag: 'ours', ...job });
    await concluded(vm, 's1');
    await vm.execute('quit');
    await vm.ended;
    await qemuImg(version, 'check', '-q', image);
    expect(await qemuImg(version, 'snapshot', '-l', image)).toMatch(/ours/);
    const blockdev = `driver=qcow2,node-name=disk0,file.driver=file,file.filename=${image}`;
    const qemu = await Qemu.start({ version, args: [...bare, '-blockdev', blockdev] });
    try {
      await qemu.execute('snapshot-load', { 'job-id': 'l1', tag: 'ours', ...job });
      await concluded(qemu, 'l1');
      expect((await memoryOf(qemu)).equals(truth)).toBe(true);
      await qemu.execute('snapshot-save', { 'job-id': 's1', tag: 'theirs', ...job });
      await concluded(qemu, 's1');
      await qemu.quit();
    } finally {
      await qemu[Symbol.asyncDispose]();
    }
    await using again = await VmProcess.start('--memory', '32M', '--drive', `id=disk0,file=${image}`);
    for (const [id, tag] of [
      ['l1', 'theirs'],
      ['l2', 'ours'],
    ]) {
      await again.execute('snapshot-load', { 'job-id': id, tag, ...job });
      await concluded(again, String(id));
      expect(readFileSync(await again.saveMemory(memory)).equals(truth)).toBe(true);
    }
  });
});

describe.each(through)('a machine of QEMU %s', (version) => {
  test.skipIf(lacksQemu(version))('goes through a vmferry VM, and its guest counts on', async () => {
    const machine: Machine = { version, machine: 'pc' };
    const source = await startMachine(machine);
    await using _ = source.qemu;
    await fillStripes(source, pagesOfOurs(machine));
    await using vm = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0', '--compat', version);
    await vm.switchOn('events', 'return-path');
    await source.qemu.setCapabilities(['return-path']);
    await source.qemu.execute('migrate', { uri: await vm.incomingUri() });
    await vm.event('MIGRATION completed');
    await using target = await startDestination(machine);
    const uri = `unix:${join(target.dir, 'in')}`;
    await target.execute('migrate-incoming', { uri });
    await vm.execute('migrate', { uri });
    await vm.event('MIGRATION completed', 2);
    await target.waitForMigration();
    // 7.2 shows where RAM is only to who lets it migrate, and it has migrated.
    if (version === '10.0') {
      const truth = await readTruth(source.qemu, source.qemu.dir, await findAddresses(source.qemu));
      expect(differences(await readTruth(target, target.dir, await findAddresses(target)), truth)).toEqual([]);
    }
    const guest = await Guest.resume(target);
    try {
      await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
      await expectCounting(guest, 0);
    } finally {
      guest.close();
    }
  });
});
