/**
 * The source cancels in each of its states, with `receive` and `relay` at the other end: its guest runs on, no file lies, and
 * it can migrate again at once. A guest that is suspended to RAM arrives suspended, and can be woken.
 *
 *     setup ─ active ─ pre-switchover ─ device ─ …          each can be cancelled
 *     postcopy-active                                       cannot
 *
 * VMFERRY_QEMU=full runs all; `npm run test:qemu` has the cancellation of an active migration in other files.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { errorLine } from './live-end.ts';
import { type Mode, Play, type PlaySetup } from './live-play.ts';
import { type Machine, startDestination, startMachine } from './machine.ts';
import type { Harms } from './proxy.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { Qtest, qtestArgs } from './qtest.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const rp: Mode = { capabilities: ['return-path'], confirms: true };
const multifd = { 'multifd-channels': 2, 'multifd-compression': 'none' };
const slow = { 'max-bandwidth': 1 << 20, 'downtime-limit': 1 };
const ballast = { first: 280, count: 200 };

interface State extends Pick<PlaySetup, 'near' | 'ballast' | 'writes'> {
  mode: Mode;
  only?: QemuVersion;
}

/** The source waits for the last word, but the last of the stream does not pass. */
const unheard = (connection: number): Harms => (connection === 0 ? { there: { stallAt: 830_000 } } : {});

const states: Record<string, State> = {
  setup: { mode: rp },
  active: { mode: { ...rp, parameters: slow }, ballast },
  'active, multifd': {
    mode: { capabilities: ['multifd', 'return-path'], parameters: { ...slow, ...multifd }, confirms: true },
    ballast,
  },
  'pre-switchover': { mode: { ...rp, sourceCapabilities: ['pause-before-switchover'] } },
  // 7.2 has no status between active and completed.
  device: { mode: rp, near: unheard, writes: false, only: '10.0' },
};

const cases = (['receive', 'relay'] as const).flatMap((verb) =>
  (['7.2', '10.0'] as const).flatMap((version) =>
    Object.entries(states)
      .filter(([, { only = version }]) => only === version)
      .map(([state, of]) => [`${state}, ${verb}, ${version}`, { verb, version, state, ...of }] as const),
  ),
);

describe.skipIf(!isFull || lacksQemu('7.2', '10.0'))('a source that cancels', () => {
  test.each(cases)('%s', async (name, { verb, version, state, mode, ...of }) => {
    await using play = await Play.start({ verb, version, mode, ...of });
    const source = play.source as Qemu;
    const begun = play.begin();
    if (state !== 'setup') {
      await begun;
      await source.waitForStatus(state.replace(/,.*/, ''));
    }
    await source.execute('migrate_cancel');
    await begun;
    const outcome = await play.outcome();
    expect(outcome.source, name).toEqual({ status: 'cancelled', runs: true });
    await play.expectTruth(outcome, [3, 130], name);

    const out = join(Qemu.makeDir(), 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    await source.clearCapabilities(['pause-before-switchover']);
    await play.guest?.ballast();
    await source.migrate(await command.uri(), { parameters: { 'max-bandwidth': 0, 'downtime-limit': 300 } });
    expect((await command.ended).code).toBe(0);
    expect((await runCli(['verify', out])).code).toBe(0);
  });

  test.each(['7.2', '10.0'] as const)('cannot in postcopy, %s: the guest is split', async (version) => {
    const parameters = { 'max-postcopy-bandwidth': 50_000, 'max-bandwidth': 200_000 };
    const mode: Mode = { capabilities: ['postcopy-ram'], postcopy: true, confirms: true, parameters };
    await using play = await Play.start({ verb: 'receive', version, mode });
    await play.begin();
    const source = play.source as Qemu;
    const sent = async () => (await source.queryMigrate()).ram?.['postcopy-bytes'] ?? 0;
    await waitUntil('pages are sent in postcopy', async () => (await sent()) > 10_000);
    const cancelled = source.execute('migrate_cancel');
    // 7.2 accepts the command.
    if (version === '10.0') await expect(cancelled).rejects.toThrow(/postcopy/i);
    else await cancelled;
    play.near?.cut();
    const outcome = await play.outcome();
    const status = version === '10.0' ? 'postcopy-paused' : 'cancelled';
    expect(outcome.source).toEqual({ status, runs: false });
    // It waited for the source to come again.
    await play.expectTruth(outcome, [130], 'postcopy');
    expect(errorLine(outcome.end.stderr).guest).toBe('split');
  });
});

/** A machine that can be suspended: it has ACPI, whose ports a test can write. */
const acpi: Machine = { version: '10.0', machine: 'bare', args: ['-machine', 'acpi=on', ...qtestArgs] };
/** Where the power management of the PIIX4 is put, its two registers in configuration space, and S3 as a guest asks for it. */
const [pmBase, baseRegister, enableRegister, suspendToRam] = [0xb000, 0x340, 0x380, 0x2400];

async function suspend(qemu: Qemu): Promise<void> {
  const ports = Qtest.open(qemu);
  try {
    await ports.configure(1, baseRegister, pmBase | 1);
    await ports.configure(1, enableRegister, 1);
    await ports.command(`outw ${pmBase + 4} ${suspendToRam}`);
  } finally {
    ports.close();
  }
  await qemu.event('SUSPEND');
  expect(await qemu.execute('query-status')).toMatchObject({ status: 'suspended' });
}

/** Requires that the guest is suspended once it may run, and starts again when it is woken. */
async function expectWakes(qemu: Qemu): Promise<void> {
  // Its program will start as after a reset, and say that it is ready.
  const booting = Guest.boot(qemu);
  const isSuspended = async () => (await qemu.execute<{ status: string }>('query-status')).status === 'suspended';
  await Promise.race([booting, waitUntil('the guest may run, and is suspended', isSuspended)]);
  expect(await isSuspended()).toBe(true);
  await qemu.execute('system_wakeup');
  const guest = await booting;
  await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
  await expectCounting(guest, 0);
  guest.close();
}

describe.skipIf(!isFull || lacksQemu('10.0'))('a guest that is suspended', () => {
  test('arrives suspended in a file, and from there, and wakes', async () => {
    const out = join(Qemu.makeDir(), 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    const { qemu, guest } = await startMachine(acpi);
    await using source = qemu;
    guest?.close();
    await suspend(source);
    await source.migrate(await command.uri(), { capabilities: ['return-path'] });
    expect((await command.ended).code).toBe(0);

    await using loaded = await startDestination(acpi);
    await loaded.setCapabilities(['mapped-ram']);
    await loaded.execute('migrate-incoming', { uri: `file:${out}` });
    await loaded.waitForMigration();
    await expectWakes(loaded);

    await using target = await startDestination(acpi);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri });
    await using sending = new LiveCommand(['send', out, uri, '--json']);
    expect((await sending.ended).code).toBe(0);
    await target.waitForMigration();
    await expectWakes(target);
  });

  test.each([
    ['precopy', ['return-path']],
    ['postcopy', ['postcopy-ram']],
  ])('passes through a relay in %s', async (how, capabilities) => {
    await using target = await startDestination(acpi);
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await target.setCapabilities(capabilities);
    await target.execute('migrate-incoming', { uri });
    await using command = new LiveCommand(['relay', 'tcp:127.0.0.1:0', uri, '--json']);
    const { qemu, guest } = await startMachine(acpi);
    await using source = qemu;
    guest?.close();
    await suspend(source);
    await source.setCapabilities(capabilities);
    await source.execute('migrate', { uri: await command.uri() });
    if (how === 'postcopy') await source.execute('migrate-start-postcopy');
    for (const each of [source, target]) await each.waitForMigration();
    expect((await command.ended).code).toBe(0);
    await expectWakes(target);
  });
});
