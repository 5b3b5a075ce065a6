/**
 * Loads a file, one of QEMU's or one of ours, into a real QEMU.
 */
import { rmSync } from 'node:fs';
import type { Capture, Route } from './capture.ts';
import { type Machine, startDestination } from './machine.ts';
import type { MigrationInfo } from './qemu.ts';
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
 * Loads a file into a destination and takes the truth of that.
 * @throws when QEMU refuses the file, with what it said about it
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

/** Loads a capture into a destination like its source. Those from sockets have been loaded already. */
export async function loadCapture(capture: Capture): Promise<Loaded> {
  const { fill: _fill, workload: _workload, ...options } = capture.options;
  const { route } = options;
  if (route === 'socket' || route === 'multifd') throw new TypeError('expected a capture in one file');
  // The stream of a background snapshot is an ordinary one, and the destination knows no such capability.
  const capabilities = options.capabilities?.filter((name) => name !== 'background-snapshot') ?? [];
  return loadInto({ ...options, route, capabilities, file: capture.file });
}
