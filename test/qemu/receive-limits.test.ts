/**
 * What `vmferry receive` refuses or cannot keep, with a real QEMU: a full disk, shared memory that the source leaves out, a
 * stream without a description. And how much memory it takes (VMFERRY_QEMU=full).
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { LiveCommand } from './live-command.ts';
import { expectRunsOn } from './load.ts';
import { fillStripes, type Machine, pagesOfOurs, startMachine } from './machine.ts';
import { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const bare: Machine = { version: '10.0', machine: 'bare' };

/** A QEMU that can be migrated, with content in its RAM. */
async function startFilled(machine: Machine, capabilities: string[], parameters: Record<string, unknown> = {}) {
  const running = await startMachine(machine);
  await fillStripes(running, pagesOfOurs(machine));
  await running.qemu.setCapabilities(capabilities);
  await running.qemu.setParameters(parameters);
  return running;
}

/** How a migration ended at its source. */
async function endOf(qemu: Qemu) {
  await waitUntil('the source has ended', async () =>
    ['completed', 'failed', 'postcopy-paused'].includes((await qemu.queryMigrate()).status ?? ''),
  );
  const { status, 'error-desc': error } = await qemu.queryMigrate();
  const { running } = await qemu.execute<{ running: boolean }>('query-status');
  return { status, error, running };
}

const errorOf = (stderr: string) => JSON.parse(stderr.trim().split('\n').at(-1) as string).error;

/** A file system with little room. Undefined where none can be mounted. */
function mountSmall(size: string): { dir: string; [Symbol.dispose](): void } | undefined {
  const dir = Qemu.makeDir();
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'none', dir]);
  if (status !== 0) {
    console.warn('skipped: a small tmpfs cannot be mounted here');
    return undefined;
  }
  return {
    dir,
    [Symbol.dispose]() {
      spawnSync('umount', [dir]);
    },
  };
}

describe.skipIf(lacksQemu('10.0'))('receive on a full disk', () => {
  const cases: [string, string[], string][] = [
    ['with a return path', ['return-path'], 'source'],
    ['without a return path', [], 'either'],
    ['multifd with a return path', ['return-path', 'multifd'], 'source'],
  ];
  test.each(cases)('%s', async (_, capabilities, guest) => {
    using small = mountSmall('400k');
    if (small === undefined) return;
    const out = join(small.dir, 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    const { qemu, guest: program } = await startFilled(bare, capabilities);
    await using _source = qemu;
    await qemu.execute('migrate', { uri: await command.uri() });
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(2);
    expect(errorOf(stderr)).toMatchObject({ guest, code: 'ENOSPC', message: expect.stringContaining('no space') });
    expect(readdirSync(small.dir)).toEqual([]);
    const source = await endOf(qemu);
    // Without a return path the source does not learn of it.
    if (guest === 'source') expect(source).toMatchObject({ status: 'failed', running: true });
    program?.close();
  });
});

describe.skipIf(lacksQemu('10.0'))('receive from a source with x-ignore-shared', () => {
  const none: Machine = { version: '10.0', machine: 'none' };

  test('refuses it before the source may let its guest go', async () => {
    const dir = Qemu.makeDir();
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', join(dir, 'out'), '--json']);
    const { qemu } = await startFilled(none, ['return-path', 'x-ignore-shared']);
    await using _ = qemu;
    await qemu.execute('migrate', { uri: await command.uri() });
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(1);
    expect(errorOf(stderr)).toMatchObject({ guest: 'source', code: 'block-ignored' });
    expect(readdirSync(dir)).toEqual([]);
    expect(await endOf(qemu)).toMatchObject({ status: 'failed', running: true });
  });

  test('accepts it with --allow-incomplete, and marks OUT', async () => {
    const dir = Qemu.makeDir();
    const out = join(dir, 'out');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--allow-incomplete']);
    const { qemu } = await startFilled(none, ['return-path', 'x-ignore-shared']);
    await using _ = qemu;
    await qemu.execute('migrate', { uri: await command.uri() });
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/memory was left out, and .*out is marked: ram/);
    expect(await endOf(qemu)).toMatchObject({ status: 'completed' });
    const verified = await runCli(['verify', out]);
    expect(verified.code).toBe(1);
    expect(verified.stdout).toMatch(/INCOMPLETE/);
  });
});

test.skipIf(lacksQemu('10.0'))(
  'a source without a description, and with a return path, does not wait for long',
  async () => {
    const machine: Machine = { ...bare, properties: ['suppress-vmdesc=on'] };
    const dir = Qemu.makeDir();
    const out = join(dir, 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    const { qemu, guest } = await startFilled(machine, ['return-path']);
    await using _ = qemu;
    await qemu.execute('migrate', { uri: await command.uri() });
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    expect(await endOf(qemu)).toMatchObject({ status: 'completed' });
    expect((await qemu.queryMigrate())['total-time']).toBeLessThan(10_000);
    guest?.close();
    await expectRunsOn(machine, out);
  },
);

describe.skipIf(lacksQemu('10.0') || !isFull)('the memory of receive is bounded', () => {
  const multifd = { 'multifd-channels': 16, 'multifd-compression': 'zstd', 'max-bandwidth': 2 ** 33 };
  const cases: [string, string[], Record<string, unknown>][] = [
    ['plain', ['return-path'], { 'max-bandwidth': 2 ** 33 }],
    ['multifd', ['return-path', 'multifd'], multifd],
  ];
  test.each(cases)('1 GiB, %s', async (_, capabilities, parameters) => {
    const dir = Qemu.makeDir();
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', join(dir, 'out'), '--json']);
    const { qemu, guest } = await startFilled({ ...bare, ramMiB: 1024 }, capabilities, parameters);
    await using _source = qemu;
    await qemu.execute('migrate', { uri: await command.uri() });
    let peakKiB = 0;
    let hasEnded = false;
    void command.ended.then(() => {
      hasEnded = true;
    });
    await waitUntil('the command has ended', () => {
      try {
        const text = readFileSync(`/proc/${command.child.pid}/status`, 'latin1');
        peakKiB = Math.max(peakKiB, Number(/^VmHWM:\s+(\d+)/m.exec(text)?.[1] ?? 0));
      } catch {
        // It has ended.
      }
      return hasEnded;
    });
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    console.log(`peak memory of receive: ${Math.round(peakKiB / 1024)} MiB`);
    expect(peakKiB).toBeGreaterThan(10_000);
    expect(peakKiB).toBeLessThan(350 * 1024);
    guest?.close();
  });
});
