/**
 * COLO with a real QEMU 7.2 at the other side: at a checkpoint that both sides have, RAM is the same, and after a failover
 * the secondary goes on. VMFERRY_QEMU=full runs all.
 *
 *     primary ──HarmingProxy──→ secondary        after checkpoint 3 the proxy withholds the last answer: the primary stands
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { guestPage } from './guest.ts';
import { type Machine, startMachine, writePage } from './machine.ts';
import { HarmingProxy } from './proxy.ts';
import { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const dir = mkdtempSync(join(tmpdir(), 'colo-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const version = '7.2';
const memory = 32 << 20;
const none = ['-M', 'none', '-m', '32', '-nodefaults'];
const checkpoints = 3;
/** Bytes of the secondary's messages up to the last one of that checkpoint. */
const answers = 4 + 12 * checkpoints - 4;
const parameters = { 'x-checkpoint-delay': 300 };
const gone = 'x-colo-lost-heartbeat';

const resumed = (qemu: Qemu) => qemu.events.filter(({ event }) => event === 'RESUME').length;

type Executor = { execute(command: string, given?: object): Promise<unknown> };

const isStanding = async (who: Executor) => {
  const { status, running } = (await who.execute('query-status')) as { status: string; running: boolean };
  return status === 'colo' && !running;
};

const isRunning = async (who: Executor) => ((await who.execute('query-status')) as { running: boolean }).running;

async function memoryOf(qemu: Qemu): Promise<Buffer> {
  const filename = join(qemu.dir, 'memory');
  await qemu.execute('pmemsave', { val: 0, size: memory, filename });
  return readFileSync(filename);
}

/** Pages in which a reset writes a few bytes. */
const pages = [0, 300, 301, 302, 303, 8191];
const loaders = pages.flatMap((page) => ['-device', `loader,file=mark,addr=${page * 4096},force-raw=on`]);

function writeMark(): string {
  const path = join(dir, 'mark');
  writeFileSync(path, 'ferry');
  return path;
}

const all = { plain: [], multifd: ['multifd'], xbzrle: ['xbzrle'] } as const;
const chosen = Object.entries(all).slice(0, process.env.VMFERRY_QEMU === 'full' ? 3 : 2);

describe.skipIf(lacksQemu(version))('COLO with QEMU 7.2', () => {
  test.each(chosen)('as secondary: %s', async (_, more) => {
    const workload = 'write:rate=4M,working-set=8M,pattern=counter';
    await using vm = await VmProcess.start('--memory', '32M', '--workload', workload, '--compat', version);
    await using qemu = await Qemu.start({ version, args: [...none, '-incoming', 'defer'] });
    await vm.switchOn('events', 'x-colo', ...more);
    await vm.execute('migrate-set-parameters', parameters);
    await qemu.setCapabilities(['events', 'x-colo', ...more]);
    const there = `unix:${join(qemu.dir, 'in')}`;
    await qemu.execute('migrate-incoming', { uri: there });
    await using proxy = await HarmingProxy.open(there, (line) => (line === 0 ? { back: { stallAt: answers } } : {}));
    await vm.execute('migrate', { uri: proxy.uri });
    await vm.event('RESUME', checkpoints);
    await waitUntil('the last checkpoint is loaded', () => resumed(qemu) === checkpoints + 1);
    await waitUntil('the primary stands', () => isStanding(vm));
    const truth = readFileSync(await vm.saveMemory(memory));
    expect((await memoryOf(qemu)).equals(truth)).toBe(true);
    expect(truth.some((byte) => byte !== 0)).toBe(true);
    await qemu.execute(gone);
    await qemu.event('COLO_EXIT');
    expect(await qemu.execute('query-status')).toMatchObject({ status: 'running' });
    expect(await qemu.execute('query-colo-status')).toEqual({
      ...{ mode: 'none', 'last-mode': 'secondary', reason: 'request' },
    });
    proxy.cut();
    await vm.event('COLO_EXIT');
    await vm.execute(gone);
    await vm.event('RESUME', checkpoints + 1);
    expect(vm.events.slice(-3)).toEqual(['COLO_EXIT', 'MIGRATION completed', 'RESUME']);
  });

  // With a processor, a QEMU 7.2 often stops answering at a checkpoint, also with another QEMU 7.2.
  test.each(chosen)('as primary: %s', async (_, more) => {
    const machine: Machine = { version, machine: 'none', ramMiB: 32, args: loaders, files: { mark: writeMark() } };
    await using qemu = (await startMachine(machine)).qemu;
    await using vm = await VmProcess.start('--incoming', 'defer', '--compat', version);
    await vm.switchOn('events', 'x-colo', ...more);
    await qemu.setCapabilities(['events', 'x-colo', ...more]);
    await qemu.setParameters({ 'x-checkpoint-delay': 1000 });
    await vm.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    await using proxy = await HarmingProxy.open(await vm.incomingUri(), (line) =>
      line === 0 ? { back: { stallAt: answers } } : {},
    );
    // The page that is written from outside becomes dirty when a reset writes the mark into it.
    const write = async (round: number) => {
      for (const page of pages) writePage(qemu, page, guestPage(page % 2 === 0 ? 'text' : 'random', page, 2 * round));
      await qemu.execute('system_reset');
      await qemu.event('RESET', { from: resets });
      resets = qemu.events.length;
    };
    let resets = 0;
    await write(0);
    await qemu.execute('migrate', { uri: proxy.uri });
    // Each of these is in the next checkpoint, or in the one after it.
    for (let round = 1; round < checkpoints; round++) {
      await vm.event('RESUME', round);
      await write(round);
    }
    await vm.event('RESUME', checkpoints + 1);
    await waitUntil('the primary stands', () => isStanding(qemu));
    const truth = await memoryOf(qemu);
    const there = readFileSync(await vm.saveMemory(memory));
    expect(there.equals(truth)).toBe(true);
    expect(there.indexOf(guestPage('random', 301, 2 * (checkpoints - 1)).subarray(64))).toBe(301 * 4096 + 64);
    await vm.execute(gone);
    await vm.event('RESUME', checkpoints + 2);
    expect(vm.events.slice(-3)).toEqual(['MIGRATION completed', 'COLO_EXIT', 'RESUME']);
    expect(readFileSync(await vm.saveMemory(memory)).equals(truth)).toBe(true);
    proxy.cut();
    await qemu.event('COLO_EXIT');
    await qemu.execute(gone);
    await waitUntil('the primary goes on', async () => (await isRunning(qemu)) && (await isRunning(vm)));
  });
});
