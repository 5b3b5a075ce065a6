/**
 * Loads a file, QEMU's or ours, into a real QEMU.
 */
import { rmSync } from 'node:fs';
import { expect } from 'vitest';
import type { Capture, Route } from './capture.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { type Machine, startDestination } from './machine.ts';
import type { MigrationInfo, Qemu } from './qemu.ts';
import { findAddresses, readTruth, type Truth } from './truth.ts';

export type LoadOptions = Machine & {
  route: Exclude<Route, 'socket' | 'multifd'>;
  file: string;
  offset?: number;
  capabilities?: readonly string[];
  parameters?: Record<string, unknown>;
};

export type Loaded = { truth: Truth; info: MigrationInfo; stderr: string; dispose: () => void };

/**
 * Loads a file into a destination and reads its truth.
 * @throws when QEMU refuses the file, with QEMU's error
 */
export async function loadInto(options: LoadOptions): Promise<Loaded> {
  const { route, file, offset, parameters = {} } = options;
  const qemu = await startDestination(options);
  try {
    await qemu.setCapabilities([...(route === 'mapped-ram' ? ['mapped-ram'] : []), ...(options.capabilities ?? [])]);
    await qemu.setParameters(parameters);
    const uri = route === 'exec' ? `exec:cat '${file}'` : `file:${file}${offset ? `,offset=${offset}` : ''}`;
    await qemu.execute('migrate-incoming', { uri });
    const info = await qemu.waitForMigration();
    const truth = await readTruth(qemu, qemu.dir, await findAddresses(qemu));
    await qemu.quit();
    return { truth, info, stderr: qemu.stderr, dispose: () => rmSync(qemu.dir, { recursive: true, force: true }) };
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  }
}

/** Loads a capture into a destination like its source. Captures from sockets are already loaded. */
export async function loadCapture(capture: Capture): Promise<Loaded> {
  const { fill: _fill, workload: _workload, ...options } = capture.options;
  const { route } = options;
  if (route === 'socket' || route === 'multifd') throw new TypeError('expected a capture in one file');
  // The stream of a background snapshot is an ordinary one, and the destination has no such capability.
  const capabilities = options.capabilities?.filter((name) => name !== 'background-snapshot') ?? [];
  return loadInto({ ...options, route, capabilities, file: capture.file });
}

/** Loads a file and lets the guest run. */
export async function withLoaded(machine: Machine, file: string, work: (guest: Guest, qemu: Qemu) => Promise<void>) {
  const qemu = await startDestination(machine);
  let guest: Guest | undefined;
  try {
    const isMapped = file.endsWith('.mapped-ram');
    await qemu.setCapabilities(isMapped ? ['mapped-ram'] : []);
    await qemu.execute('migrate-incoming', { uri: isMapped ? `file:${file}` : `exec:cat '${file}'` });
    await qemu.waitForMigration();
    guest = await Guest.resume(qemu);
    await work(guest, qemu);
    expect(await qemu.execute('query-status')).toMatchObject({ running: true });
  } finally {
    guest?.close();
    await qemu[Symbol.asyncDispose]();
  }
}

/** Expects that the guest in a file continues: its program obeys commands, and counts. */
export const expectRunsOn = (machine: Machine, file: string) =>
  withLoaded(machine, file, async (guest) => {
    await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
    await expectCounting(guest, 0);
  });
