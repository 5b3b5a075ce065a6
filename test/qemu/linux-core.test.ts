/**
 * A running Linux, saved by QEMU: its core file is that of `dump-guest-memory`, and crash, drgn and gdb read it. The kernel
 * is Debian's (install-linux.sh), which knows where its own addresses are: it prints that of its banner.
 * VMFERRY_QEMU=full runs it.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { hangGuardMs } from '../limits.ts';
import { hasProgram } from '../oracle/containers.ts';
import { runCli } from '../run-cli.ts';
import { equalFiles } from './expect-read.ts';
import { dumpMemory, save } from './physical-guest.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

const linux = process.env.VMFERRY_LINUX_DIR || join(homedir(), '.cache/vmferry-linux');
const isFull = process.env.VMFERRY_QEMU === 'full';

function lacksLinux(): boolean {
  if (!isFull || existsSync(join(linux, 'initrd'))) return !isFull;
  console.warn('skipped: no Linux guest; run test/qemu/install-linux.sh');
  return true;
}

/** Skips, and says so, where a program is not installed. */
function testWith(program: string, name: string, run: () => void): void {
  const isThere = hasProgram(program);
  if (isFull && !isThere) console.warn(`skipped: ${program} is not installed`);
  test.skipIf(!isThere)(name, run);
}

/** Starts Linux, and returns the virtual address of its banner once it runs. */
async function startLinux(qemu: Qemu): Promise<string> {
  const console = join(qemu.dir, 'console');
  for (const until = performance.now() + hangGuardMs; performance.now() < until; await sleep(50)) {
    const printed = existsSync(console) ? readFileSync(console, 'latin1') : '';
    const address = /^([0-9a-f]{16}) \w linux_banner\s+ready/m.exec(printed)?.[1];
    if (address !== undefined) return `0x${address}`;
  }
  throw new Error(`Linux did not start:\n${readFileSync(console, 'latin1').slice(-2000)}`);
}

const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

const isMissing = lacksQemu('7.2', '10.0') || lacksLinux();
describe.skipIf(isMissing).each(qemuVersions)('Linux saved by QEMU %s', (version) => {
  let qemu: Qemu;
  let saved = '';
  let banner = '';
  const file = (name: string) => join(qemu.dir, name);

  beforeAll(async () => {
    const dir = Qemu.makeDir();
    qemu = await Qemu.start({
      ...{ version, dir },
      args: [
        ...['-nodefaults', '-M', 'q35', '-accel', 'tcg', '-cpu', 'max', '-smp', '2', '-m', '256'],
        ...['-device', 'vmcoreinfo'],
        ...['-kernel', join(linux, 'vmlinuz'), '-initrd', join(linux, 'initrd'), '-append', 'console=ttyS0'],
        ...['-serial', `file:${join(dir, 'console')}`],
      ],
    });
    banner = await startLinux(qemu);
    await qemu.execute('stop');
    saved = await save(qemu);
    for (const [name, ...options] of [['guest.core'], ['guest.paged', '--paging']] as const) {
      const { code, stderr } = await runCli(['extract', saved, '--elf', ...options, '-o', file(name)]);
      expect(code, stderr).toBe(0);
    }
    return () => qemu[Symbol.asyncDispose]();
  });

  test("has QEMU's own core file, with the note of the kernel", async () => {
    expect(await equalFiles(file('guest.core'), await dumpMemory(qemu))).toBe(true);
  });

  test('is read and searched by the addresses of the kernel', async () => {
    const read = await runCli(['read', saved, '--virtual', '--at', banner, '--length', '14', '--raw']);
    expect([read.code, read.stdout]).toEqual([0, 'Linux version ']);
    const found = await runCli(['search', saved, '--virtual', 'Linux version 6.']);
    expect([found.code, found.stdout]).toEqual([0, expect.stringContaining(banner)]);
  });

  testWith('crash', 'names its kernel to crash', () => {
    expect(run('crash', '--osrelease', file('guest.core'))).toMatch(/^6\.\d+\.\d+.*-cloud-amd64\n$/);
  });

  testWith('gdb', 'is open to gdb, by virtual addresses', () => {
    const shown = run('gdb', '-batch', '-nx', '-ex', `x/s ${banner}`, '-c', file('guest.paged'));
    expect(shown).toContain('"Linux version 6.');
  });

  testWith('drgn', 'is a Linux kernel to drgn, which reads its memory', () => {
    const script = file('look.py');
    writeFileSync(script, `print(prog.flags)\nprint(prog.read(${banner}, 14))\n`);
    const shown = run('drgn', '-q', '-c', file('guest.paged'), script);
    expect(shown).toBe("ProgramFlags.IS_LINUX_KERNEL\nb'Linux version '\n");
  });
});
