/**
 * A target that refuses the guest, and memory that both sides share.
 *
 *     validate-uuid      the target's guest has another UUID: it refuses, and the guest stays where it was
 *     x-ignore-shared    the source leaves out what the target has already
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { errorLine, targetEnd } from './live-end.ts';
import { Play } from './live-play.ts';
import { fillStripes, type Machine, startDestination, startMachine } from './machine.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const versions: QemuVersion[] = isFull ? ['7.2', '10.0'] : ['10.0'];

const withUuid = (digit: number) => ({ args: ['-uuid', `01234567-89ab-cdef-0123-456789abcde${digit}`] });
const validated = { capabilities: ['validate-uuid', 'return-path'], confirms: true };

describe.skipIf(lacksQemu(...versions))('a target with another UUID refuses the guest', () => {
  test.each(versions)('of a file, %s', async (version) => {
    const setup = { verb: 'receive', version, mode: validated, machine: withUuid(1) } as const;
    await using play = await Play.start(setup);
    await play.begin();
    await play.expectTruth(await play.outcome(), [0], 'receive');
    await using target = await startDestination({ version, machine: 'bare', ...withUuid(2) });
    await target.setCapabilities(['validate-uuid']);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri });
    await using command = new LiveCommand(['send', play.out, uri, '--json']);
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(3);
    expect(errorLine(stderr).guest).toBe('source');
    expect(await targetEnd(target)).toBe('gone');
  });

  test.each(versions)('of a relay, and it runs on at the source, %s', async (version) => {
    const machines = { machine: withUuid(1), targetMachine: withUuid(2) };
    await using play = await Play.start({ verb: 'relay', version, mode: validated, ...machines });
    await play.begin();
    const outcome = await play.outcome();
    await play.expectTruth(outcome, [3], 'relay');
    expect(outcome).toMatchObject({ source: { status: 'failed', runs: true }, target: 'gone' });
    // The guest is small: all of it may be written before the target is gone, without a word.
    expect(['source', 'either']).toContain(errorLine(outcome.end.stderr).guest);
  });
});

/** A machine whose RAM is a file that another machine has, too. */
const sharing = (version: QemuVersion, path: string): Machine => ({
  ...{ version, machine: 'bare' },
  args: [
    ...['-object', `memory-backend-file,id=pc.ram,mem-path=${path},size=2M,share=on`],
    ...['-machine', 'memory-backend=pc.ram'],
  ],
});

describe.skipIf(lacksQemu(...versions))('shared memory is left out, and is there all the same', () => {
  const multifd = ['--target-multifd-channels', '2'];
  const cases = versions.flatMap((version) => [
    [`${version}: passed on`, version, [], []] as const,
    ...(isFull ? [[`${version}: encoded for multifd`, version, multifd, ['multifd']] as const] : []),
  ]);
  test.each(cases)('through a relay, %s', async (_, version, args, capabilities) => {
    const dir = Qemu.makeDir();
    const machine = sharing(version, join(dir, 'ram'));
    const running = await startMachine(machine);
    await using source = running.qemu;
    await fillStripes(running, { first: 256, count: 256 });
    await running.guest?.startDirtying({ first: 256, count: 16 }, 'few-bytes');
    await source.setCapabilities(['x-ignore-shared', 'return-path']);
    await using target = await startDestination(machine);
    await target.setCapabilities(['x-ignore-shared', ...capabilities]);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri });
    await using command = new LiveCommand(['relay', 'tcp:127.0.0.1:0', uri, '--json', ...args]);
    await source.migrate(await command.uri());
    running.guest?.close();
    const { code, stdout, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    // The file of 2 MiB has not passed.
    expect(JSON.parse(stdout).forwardBytes).toBeLessThan(1 << 20);
    await target.waitForMigration();
    const guest = await Guest.resume(target);
    await expectCounting(guest, 0);
    guest.close();
  });

  test.runIf(isFull)('and a relay that would keep it in a file says so', async () => {
    const dir = Qemu.makeDir();
    const machine = sharing('10.0', join(dir, 'ram'));
    const running = await startMachine(machine);
    await using source = running.qemu;
    running.guest?.close();
    await source.setCapabilities(['x-ignore-shared', 'return-path']);
    await using target = await startDestination(machine);
    await target.setCapabilities(['x-ignore-shared']);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri });
    const out = join(Qemu.makeDir(), 'out');
    await using command = new LiveCommand(['relay', 'tcp:127.0.0.1:0', uri, '--json', '--tee', out]);
    await source.migrate(await command.uri());
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(2);
    expect(errorLine(stderr).guest).toBe('target');
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(join(out, '..'))).toEqual([]);
  });
});
