/**
 * Files between `vmferry vm` and real QEMU, while the guest runs: background snapshots, and mapped-ram files with multifd and
 * direct I/O. What is loaded is the guest as it was at one moment.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

const MiB = 1 << 20;
const memory = 32 * MiB;
const workingSet = 8 * MiB;
const bare = ['-M', 'none', '-m', '32', '-nodefaults'];
const direct = { 'direct-io': true, 'multifd-channels': 4 };
// O_DIRECT needs a file system with blocks: not one in memory.
const dir = mkdtempSync(join(tmpdir(), 'vm-files-'));
const memoryDir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'vm-files-'));
afterAll(() => {
  for (const each of [dir, memoryDir]) rmSync(each, { recursive: true, force: true });
});

/** The numbers of the rounds in the pages of the working set. */
const roundsIn = (ram: Buffer): number[] =>
  Array.from({ length: workingSet / 4096 }, (_, page) => Number(ram.readBigUInt64LE(MiB + page * 4096)));

/** The workload writes page after page, round and round. So at any moment some first pages are one round ahead. */
function expectOneMoment(ram: Buffer): void {
  const rounds = roundsIn(ram);
  const [first = 0] = rounds;
  expect(first).toBeGreaterThan(0);
  const behind = rounds.findIndex((round) => round !== first);
  const rest = behind < 0 ? [] : rounds.slice(behind);
  expect(rest.every((round) => round === first - 1)).toBe(true);
}

const startVm = (version: QemuVersion) => {
  const workload = 'write:rate=200M,working-set=8M,pattern=counter';
  return VmProcess.start('--memory', '32M', '--workload', workload, '--compat', version);
};

async function memoryOf(qemu: Qemu): Promise<Buffer> {
  const filename = join(qemu.dir, 'memory');
  await qemu.execute('pmemsave', { val: 0, size: memory, filename });
  return readFileSync(filename);
}

const modes: [name: string, capabilities: string[], parameters: Record<string, unknown>][] = [
  ['a background snapshot', ['background-snapshot'], {}],
  ['a background snapshot in a mapped-ram file', ['background-snapshot', 'mapped-ram'], {}],
  ['mapped-ram, multifd, direct I/O', ['mapped-ram', 'multifd'], direct],
];

describe.each(qemuVersions)('QEMU %s loads what vmferry vm wrote', (version) => {
  const isNew = version === '10.0';
  test.skipIf(lacksQemu(version)).each(modes.slice(0, isNew ? 3 : 1))('%s', async (_, capabilities, parameters) => {
    await using vm = await startVm(version);
    await vm.switchOn('events', ...capabilities);
    await vm.execute('migrate-set-parameters', parameters);
    const path = join(dir, `${version} ${capabilities.join(' ')}`);
    await vm.execute('migrate', { uri: isNew ? `file:${path}` : `exec:cat > '${path}'` });
    await vm.event('MIGRATION completed');
    const isSnapshot = capabilities.includes('background-snapshot');
    expect(await vm.execute('query-status')).toMatchObject({ status: isSnapshot ? 'running' : 'postmigrate' });

    await using qemu = await Qemu.start({ version, args: [...bare, '-incoming', 'defer', '-S'] });
    await qemu.setCapabilities(capabilities.filter((each) => each !== 'background-snapshot'));
    await qemu.setParameters(parameters);
    await qemu.execute('migrate-incoming', { uri: isNew ? `file:${path}` : `exec:cat '${path}'` });
    await qemu.waitForMigration();
    const ram = await memoryOf(qemu);
    expectOneMoment(ram);
    if (!isSnapshot) expect(ram.equals(readFileSync(await vm.saveMemory(memory)))).toBe(true);
  });
});

/** A QEMU whose RAM has content. */
async function startSource(version: QemuVersion): Promise<{ qemu: Qemu; ram: Buffer }> {
  // A background snapshot needs RAM in memory, or in a file in memory.
  const image = join(memoryDir, version);
  const ram = Buffer.concat([randomBytes(4 * MiB), Buffer.alloc(20 * MiB), randomBytes(MiB), Buffer.alloc(7 * MiB)]);
  writeFileSync(image, ram);
  const backend = `memory-backend-file,id=ram,mem-path=${image},size=32M,share=off`;
  const args = ['-M', 'none,memory-backend=ram', '-m', '32', '-nodefaults', '-object', backend];
  return { qemu: await Qemu.start({ version, args }), ram };
}

describe.each(qemuVersions)('vmferry vm takes what QEMU %s sends', (version) => {
  test.skipIf(lacksQemu(version))('a background snapshot', async () => {
    const { qemu, ram } = await startSource(version);
    await using _ = qemu;
    await using vm = await VmProcess.start('--incoming', 'defer', '--compat', version);
    await vm.switchOn('events');
    await vm.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    await qemu.setCapabilities(['background-snapshot']);
    await qemu.migrate(await vm.incomingUri());
    await vm.event('MIGRATION completed');
    expect(await qemu.execute('query-status')).toMatchObject({ status: 'running' });
    expect(readFileSync(await vm.saveMemory(memory)).equals(ram)).toBe(true);
    expect(await vm.execute('query-status')).toMatchObject({ status: 'running' });
  });

  test.skipIf(version === '7.2' || lacksQemu(version))('mapped-ram, multifd, direct I/O', async () => {
    const { qemu, ram } = await startSource(version);
    await using _ = qemu;
    const uri = `file:${join(dir, 'of QEMU')}`;
    await qemu.migrate(uri, { capabilities: ['mapped-ram', 'multifd'], parameters: direct });
    await using vm = await VmProcess.start('--incoming', 'defer', '--compat', version);
    await vm.switchOn('events', 'mapped-ram', 'multifd');
    await vm.execute('migrate-set-parameters', direct);
    await vm.execute('migrate-incoming', { uri });
    await vm.event('MIGRATION completed');
    expect(readFileSync(await vm.saveMemory(memory)).equals(ram)).toBe(true);
  });
});
