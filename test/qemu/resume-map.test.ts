/**
 * `vmferry resume --map` with real QEMU 10.0: the guest runs on the file itself, its RAM is what the source had, block by block,
 * and the file stays as it was.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { MappedRamReader, open, openSavedVm, type RamDiff } from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
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

/** Boots a guest, writes its memory, and saves it to a mapped-ram file while it runs or stands still. */
async function save(machine: Machine, { stopped = false } = {}): Promise<Saved> {
  const running = await startMachine(machine);
  const { qemu, guest, args } = running;
  dirs.push(qemu.dir);
  const ours = pagesOfOurs(machine);
  await fillStripes(running, ours);
  // Some pages are written while they are saved, and are zero in the end.
  await guest?.startDirtying({ first: ours.first, count: 512 }, 'zero-in-turn', 50);
  const file = join(qemu.dir, 'guest.mapped-ram');
  if (stopped) await qemu.execute('stop');
  await qemu.migrate(`file:${file}`, { capabilities: ['mapped-ram'], parameters: { 'max-bandwidth': 0 } });
  guest?.close();
  await qemu.quit();
  return { file, dir: qemu.dir, args };
}

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Writes bytes at the places of zero pages of the mapped block, as a guest leaves them that cleared pages while it was saved. */
async function plantStale(path: string, count: number): Promise<number> {
  const file = await open(path);
  const { ram } = await openSavedVm(file, { makeScratch: () => Promise.reject(new Error('no scratch')) });
  const block = ram.blocks.find(({ idstr }) => idstr === 'pc.ram' || idstr === 'ram');
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

/** Starts `resume --map` with a machine. */
async function resume(
  { file, dir, args }: Saved,
  options: string[] = [],
  more: string[] = [],
  version: QemuVersion = '10.0',
) {
  const own = [...args, ...monitorArgs(dir), ...more];
  rmSync(join(dir, 'qmp'), { force: true });
  const command = new LiveCommand(['resume', file, '--map', ...options, '--', findQemu(version) as string, ...own], {
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

  test('the guest runs on', async () => {
    const saved = await save(machines.pc as Machine);
    const { command, args } = await resume(saved);
    await using qemu = await Qemu.adopt(command.child, { version: '10.0', args, dir: saved.dir });
    const guest = await Guest.resume(qemu);
    expect(await guest.stop()).toBeGreaterThan(0);
    guest.close();
    await qemu.execute('quit');
    expect((await command.ended).code).toBe(0);
  });
});
void [isFull];
