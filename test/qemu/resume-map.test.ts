/**
 * `vmferry resume --map` with real QEMU 10.0: the guest runs on the file itself, its RAM is what the source had, block by block,
 * and the file stays as it was.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { MappedRamReader, open, openSavedVm, type RamDiff } from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { fillStripes, type Machine, pagesOfOurs, startMachine } from './machine.ts';
import { findQemu, monitorArgs, Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

/** A guest that was saved, and the machine that it runs on. */
interface Saved {
  file: string;
  dir: string;
  args: readonly string[];
}

const dirs: string[] = [];
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** Boots a guest, and writes its memory. The guest goes on writing. */
async function boot(machine: Machine) {
  const running = await startMachine(machine);
  const { qemu, guest, args } = running;
  dirs.push(qemu.dir);
  const ours = pagesOfOurs(machine);
  await fillStripes(running, ours);
  // Some pages are written while they are saved, and are zero in the end.
  await guest?.startDirtying({ first: ours.first, count: 512 }, 'zero-in-turn', 50);
  return { qemu, guest, args, dir: qemu.dir };
}

/** Saves a guest to a mapped-ram file, while it runs or stands still. */
async function save(machine: Machine, { stopped = false } = {}): Promise<Saved> {
  const { qemu, guest, args, dir } = await boot(machine);
  const file = join(dir, 'guest.mapped-ram');
  if (stopped) await qemu.execute('stop');
  await qemu.migrate(`file:${file}`, { capabilities: ['mapped-ram'], parameters: { 'max-bandwidth': 0 } });
  guest?.close();
  await qemu.quit();
  return { file, dir, args };
}

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Writes bytes at the places of zero pages of the mapped block, as a guest leaves them that cleared pages while it was saved. */
async function plantStale(path: string, count: number, idstr = 'pc.ram'): Promise<number> {
  const file = await open(path);
  const { ram } = await openSavedVm(file, { makeScratch: () => Promise.reject(new Error('no scratch')) });
  const block = ram.blocks.find((each) => each.idstr === idstr);
  if (block?.mapped === undefined) throw new Error('expected a block with pages');
  const reader = new MappedRamReader(file.content, ram.blocks);
  const fd = openSync(path, 'r+');
  let planted = 0;
  for (let page = block.usedLength / block.pageSize - 1; page > 0 && planted < count; page -= 3) {
    if ((await reader.state(block, page)) !== 'zero') continue;
    writeSync(fd, Buffer.from('stale'), 0, 5, block.mapped.pagesOffset + page * block.pageSize + 100);
    planted++;
  }
  closeSync(fd);
  await file.close();
  return planted;
}

/** A command that is this QEMU, and ends when vmferry is killed. */
function qemuIn(dir: string, version: QemuVersion): string {
  const path = join(dir, 'run-qemu');
  writeFileSync(path, `#!/bin/sh\nexec setpriv --pdeathsig KILL ${findQemu(version)} "$@"\n`, { mode: 0o755 });
  return path;
}

/** Starts `resume --map` with a machine. */
async function resume(
  { file, dir, args }: Saved,
  options: string[] = [],
  more: string[] = [],
  version: QemuVersion = '10.0',
) {
  const own = [...args, ...monitorArgs(dir), ...more];
  rmSync(join(dir, 'qmp'), { force: true });
  const command = new LiveCommand(['resume', file, '--map', ...options, '--', qemuIn(dir, version), ...own], {
    cwd: dir,
  });
  return { command, args: own };
}

/** What a QEMU has in its memory, compared with FILE, block by block. */
async function expectSameRam(qemu: Qemu, file: string): Promise<void> {
  const again = join(qemu.dir, 'again.migration');
  await qemu.migrate(`exec:cat > ${again}`, { parameters: { 'max-bandwidth': 0 } });
  const { stdout, stderr } = await runCli(['diff', file, again, '--json']);
  expect(stderr).toBe('');
  const { ram } = JSON.parse(stdout) as { ram: RamDiff };
  expect(ram.blocks.length).toBeGreaterThan(1);
  const others = ram.blocks
    .filter(({ pages, same }) => pages !== same)
    .map(({ idstr, changes }) => ({ idstr, changes }));
  expect([others, ram.onlyOld, ram.onlyNew]).toEqual([[], [], []]);
}

const numa = [
  ...['-object', 'memory-backend-ram,id=m0,size=16M', '-numa', 'node,memdev=m0'],
  ...['-object', 'memory-backend-ram,id=m1,size=16M', '-numa', 'node,memdev=m1'],
];

const machines: Record<string, Machine> = {
  q35: { version: '10.0', machine: 'q35', ramMiB: 256 },
  pc: { version: '10.0', machine: 'pc', ramMiB: 256 },
};

describe.skipIf(lacksQemu('10.0'))('resume --map', () => {
  test.each(Object.entries(machines))('%s: RAM is equal, and the file stays as it was', async (_, machine) => {
    const saved = await save(machine);
    expect(await plantStale(saved.file, 1000)).toBe(1000);
    const before = digest(saved.file);
    const { command, args } = await resume(saved, [], ['-S']);
    await using qemu = await Qemu.adopt(command.child, { version: '10.0', args, dir: saved.dir });
    await qemu.waitForStatus('completed');
    await expectSameRam(qemu, saved.file);
    await qemu.execute('quit');
    const { code, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, expect.stringMatching(/is locked[\s\S]*pages of .* hold stale bytes/)]);
    expect(digest(saved.file)).toBe(before);
    expect(existsSync(saved.file)).toBe(true);
  });

  test('the guest runs on; one that was paused stays paused', async () => {
    for (const stopped of [false, true]) {
      const saved = await save(machines.pc as Machine, { stopped });
      const { command, args } = await resume(saved);
      await using qemu = await Qemu.adopt(command.child, { version: '10.0', args, dir: saved.dir });
      await qemu.waitForStatus('completed');
      const { status } = await qemu.execute<{ status: string }>('query-status');
      expect(status).toBe(stopped ? 'paused' : 'running');
      const guest = await Guest.resume(qemu);
      await expectCounting(guest, 0);
      guest.close();
      await qemu.execute('quit');
      expect((await command.ended).code).toBe(0);
    }
  });

  test('clones have overlays and generation ids of their own', async () => {
    const saved = await save({ version: '10.0', machine: 'q35', args: ['-device', 'vmgenid'] });
    const before = [digest(saved.file), digest(join(saved.dir, 'boot.img'))];
    const args = saved.args.map((arg) => arg.replace(`${saved.dir}/guest,`, `${saved.dir}/c{n}/guest,`));
    const numbers = [1, 2].map((n) => join(saved.dir, `c${n}`));
    for (const dir of numbers) mkdirSync(dir);
    const own = [qemuIn(saved.dir, '10.0'), ...args, ...monitorArgs(join(saved.dir, 'c{n}'))];
    const refused = await runCli(['resume', saved.file, '--map', '--clones', '2', '--', ...own]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringMatching(/would both write \S+boot\.img/)]);
    await using command = new LiveCommand(['resume', saved.file, '--map', '--clones', '2', '--overlay', '--', ...own]);
    const ids: string[] = [];
    for (const dir of numbers) {
      const qemu = await Qemu.adopt(command.child, { version: '10.0', args, dir });
      await qemu.waitForStatus('completed');
      ids.push((await qemu.execute<{ guid: string }>('query-vm-generation-id')).guid);
      const nodes = await qemu.execute<{ 'node-name': string; drv: string }[]>('query-named-block-nodes', {
        flat: true,
      });
      expect(nodes.find((node) => node['node-name'] === 'boot')?.drv).toBe('qcow2');
      const guest = await Guest.resume(qemu);
      await expectCounting(guest, 0);
      guest.close();
      await qemu.execute('quit');
      qemu.disconnect();
    }
    const { code, stderr } = await command.ended;
    expect([code, new Set(ids).size]).toEqual([0, 2]);
    expect(stderr).not.toMatch(/vmgenid/);
    expect([digest(saved.file), digest(join(saved.dir, 'boot.img'))]).toEqual(before);
  });
});

describe.skipIf(lacksQemu('7.2'))('with QEMU 7.2', () => {
  test('says what it can do instead, and that is right', async () => {
    const machine: Machine = { version: '7.2', machine: 'bare', ramMiB: 16 };
    const { qemu, guest, args, dir } = await boot(machine);
    const stream = join(dir, 'guest.migration');
    await qemu.migrate(`exec:cat > ${stream}`, { parameters: { 'max-bandwidth': 0 } });
    guest?.close();
    await qemu.quit();
    const file = join(dir, 'guest.mapped-ram');
    const refused = await runCli(['resume', stream, '--map', '--stream', join(dir, 'small')]);
    const [, convert = ''] = /make one with vmferry (.*)$/m.exec(refused.stderr) ?? [];
    expect((await runCli(convert.split(' '))).code).toBe(0);
    const { command } = await resume({ file, dir, args }, [], [], '7.2');
    const { code, stderr } = await command.ended;
    expect([code, stderr]).toEqual([2, expect.stringMatching(/QEMU 7\.2\S* cannot run on a mapped-ram file/)]);
    const [, extract = '', object = '', incoming = ''] =
      /run vmferry (.*), then use -object (\S+) in place of .* and -incoming '(.*)'/.exec(stderr) ?? [];
    expect((await runCli(extract.split(' '), undefined, { cwd: dir })).code).toBe(0);
    const { stdout } = await runCli(['resume', file, '--map', '--stream', join(dir, 'OUT')]);
    const [, place = ''] = /-machine (\S+)/.exec(stdout) ?? [];
    const more = ['-object', object, '-machine', place, '-incoming', incoming, '-S'];
    await using old = await Qemu.start({ version: '7.2', dir, args: [...args, ...more] });
    await old.waitForStatus('completed');
    await expectSameRam(old, file);
  });
});

const others: [string, Machine, string[]][] = [
  ['NUMA nodes', { version: '10.0', machine: 'q35', args: numa }, ['m0', 'm1']],
  ['NUMA nodes of an old machine type', { version: '10.0', machine: 'pc', type: 'pc-i440fx-3.1', args: numa }, ['m1']],
  ['an old machine type', { version: '10.0', machine: 'pc', type: 'pc-i440fx-3.1' }, ['pc.ram']],
  ['no devices', { version: '10.0', machine: 'bare', ramMiB: 16 }, ['pc.ram']],
];

describe.skipIf(lacksQemu('10.0') || !isFull)('resume --map', () => {
  test.each(others)('%s', async (_, machine, planted) => {
    const saved = await save(machine);
    const inspected = JSON.parse((await runCli(['inspect', saved.file, '--json'])).stdout) as {
      ram: { blocks: { idstr: string }[] };
    };
    const names = inspected.ram.blocks.map(({ idstr }) => idstr);
    for (const name of planted) {
      const idstr = names.includes(name) ? name : `/objects/${name}`;
      expect(await plantStale(saved.file, 100, idstr)).toBe(100);
    }
    const { command, args } = await resume(saved, [], ['-S']);
    await using qemu = await Qemu.adopt(command.child, { version: '10.0', args, dir: saved.dir });
    await qemu.waitForStatus('completed');
    const maps = await qemu.hmp('info ramblock');
    expect(maps).toContain(planted[0]);
    await expectSameRam(qemu, saved.file);
    await qemu.execute('quit');
    expect((await command.ended).code).toBe(0);
  });
});
