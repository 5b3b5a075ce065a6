/** A real QEMU that migrates to another through `vmferry relay`. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { runCli } from '../run-cli.ts';
import { expectCounting } from './expect-counting.ts';
import { equalFiles } from './expect-read.ts';
import type { Guest, PageRange } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { fillStripes, type Machine, pagesOfOurs, startDestination, startMachine } from './machine.ts';
import type { Qemu, QemuVersion } from './qemu.ts';
import { type Addresses, differences, findAddresses, readTruth } from './truth.ts';
import { waitUntil } from './wait-until.ts';

export interface Setup {
  version: QemuVersion;
  /** Default: the source's. */
  targetVersion?: QemuVersion;
  /** What the target has instead of the source's. */
  target?: { capabilities: string[]; parameters?: Record<string, unknown> };
  capabilities?: string[];
  parameters?: Record<string, unknown>;
  machine?: Partial<Machine>;
  /** Further arguments of the relay. */
  args?: readonly string[];
  /** Called before the target listens. */
  prepare?: (source: Qemu, target: Qemu) => Promise<void>;
  /** Where the relay finds the target, given its URI. */
  via?: (target: string) => Promise<string> | string;
}

/** A source whose guest runs, a target that waits, and a relay between them. */
export class Between {
  readonly ours: PageRange;

  private constructor(
    readonly setup: Setup,
    readonly machine: Machine,
    readonly source: Qemu,
    readonly guest: Guest,
    readonly target: Qemu,
    readonly addresses: Addresses,
    public relay: LiveCommand,
  ) {
    this.ours = pagesOfOurs(machine);
  }

  static async start(setup: Setup): Promise<Between> {
    const { version, capabilities = [], parameters = {}, via = (uri) => uri } = setup;
    const machine: Machine = { version, machine: 'bare', ...setup.machine };
    const running = await startMachine(machine);
    const target = await startDestination({ ...machine, version: setup.targetVersion ?? version });
    await fillStripes(running, pagesOfOurs(machine));
    const addresses = await findAddresses(running.qemu);
    await running.qemu.setCapabilities(capabilities);
    await running.qemu.setParameters(parameters);
    await target.setCapabilities(setup.target?.capabilities ?? capabilities);
    await target.setParameters((setup.target === undefined ? parameters : setup.target.parameters) ?? {});
    await setup.prepare?.(running.qemu, target);
    const targetUri = `unix:${join(target.dir, 'incoming')}`;
    await target.execute('migrate-incoming', { uri: targetUri });
    const relay = startRelay(await via(targetUri), setup.args);
    return new Between(setup, machine, running.qemu, running.guest as Guest, target, addresses, relay);
  }

  /** Migrates in passes, while the guest dirties its memory. */
  async migrate(isPostcopy = false): Promise<void> {
    const { source, target, guest } = this;
    await this.begin();
    if (isPostcopy) await source.execute('migrate-start-postcopy');
    else await stopBetweenPasses(guest);
    await source.setParameters({ 'max-bandwidth': 0 });
    for (const qemu of [source, target]) await qemu.waitForMigration();
  }

  /** Begins a migration that does not end by itself: the guest rewrites its memory faster than it may be sent. */
  async begin(): Promise<void> {
    const { source, guest, ours } = this;
    await guest.startDirtying(ours, 'mixed');
    await source.setParameters({ 'max-bandwidth': 2 << 20, 'downtime-limit': 1 });
    await source.execute('migrate', { uri: await this.relay.uri() });
    const passes = async () => (await source.queryMigrate()).ram?.['dirty-sync-count'] ?? 0;
    await waitUntil('the second pass begins', async () => (await passes()) >= 2);
  }

  /** Expects that the target's RAM is that of the stopped source, and that in `file`, if given. */
  async expectSame(file?: string): Promise<void> {
    const { source, target } = this;
    const truth = await readTruth(source, source.dir, this.addresses);
    const there = join(target.dir, 'there');
    mkdirSync(there);
    expect(differences(await readTruth(target, there, await findAddresses(target)), truth)).toEqual([]);
    if (file === undefined) return;
    const { stdout, stderr } = await runCli(['extract', file, '--all', join(there, 'kept'), '--json']);
    expect(stderr).toBe('');
    const blocks: { idstr: string; path: string }[] = JSON.parse(stdout).blocks;
    expect(blocks.map(({ idstr }) => idstr).sort()).toEqual([...truth.keys()].sort());
    for (const { idstr, path } of blocks)
      expect(await equalFiles(path, truth.get(idstr)?.path ?? ''), idstr).toBe(true);
  }

  /** Expects that the guest runs at the source. */
  async expectGoesOn(): Promise<void> {
    expect(await this.source.execute('query-status')).toMatchObject({ running: true });
    await expectCounting(this.guest, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.guest.close();
    await this.relay[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
    await this.target[Symbol.asyncDispose]();
  }
}

/**
 * Stops writing when each page was written again after the pass began. QEMU 7.2 can lose a write at the moment in which a
 * pass begins.
 */
async function stopBetweenPasses(guest: Guest): Promise<void> {
  const rounds = await guest.count();
  await waitUntil('all pages are written again', async () => (await guest.count()) >= rounds + 2);
  await guest.stop();
}

export const startRelay = (target: string, args: readonly string[] = []) =>
  new LiveCommand(['relay', 'tcp:127.0.0.1:0', target, '--json', ...args]);

/** The report of a relay that succeeded. */
export async function reportOf(relay: LiveCommand): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await relay.ended;
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

/** Expects that a relay failed with exit code 3, and returns its error. */
export async function failureOf(relay: LiveCommand, code = 3): Promise<Record<string, unknown>> {
  const end = await relay.ended;
  expect(end.stdout).toBe('');
  expect(end.code, end.stderr).toBe(code);
  const lines = end.stderr.trimEnd().split('\n');
  return JSON.parse(lines.at(-1) as string).error;
}

export const multifd = (channels: number, compression: string) => ({
  'multifd-channels': channels,
  'multifd-compression': compression,
});
