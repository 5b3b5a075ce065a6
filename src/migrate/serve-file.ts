/**
 * Serves the VM in a file (`page-server.ts`). As with `sendFile`, the file is checked before anything is connected: a stream is read to
 * its end, and a mapped-ram file except for its pages, which are read when they are sent.
 */
import type { Connection } from '../io/connection.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import { type ReleaseName, releaseRulesOf } from '../schema/release-rules.ts';
import { readIterables } from '../store/iterables.ts';
import { type OpenedVm, openSavedVm, type SavedVmOptions } from '../store/ram-content.ts';
import { LiveError, nextOfServer } from './live-error.ts';
import { servePages } from './page-server.ts';
import type { ServedGuest, ServeOptions } from './serve-options.ts';

/** How the VM in a file is served. */
export interface ServeFileOptions
  extends Omit<ServeOptions, 'iterables' | 'rules'>,
    Pick<SavedVmOptions, 'makeScratch' | 'notePlan'> {
  /** The version of QEMU at the destination. Default: by the machine type, and the file. */
  compat?: ReleaseName | undefined;
  /** Called when the file is checked, before anything is connected. It may throw. */
  checked?: (vm: OpenedVm) => void | Promise<void>;
}

/**
 * Serves the VM in a file. `connect` is called once for the main line, and once more for the preempt channel, if there is
 * one. The file must not change meanwhile.
 *
 * @example
 * const file = await open('guest.mapped-ram');
 * await serveFile(file, () => connect('unix:/run/incoming.sock'), { makeScratch, onRunning: () => console.log('it runs') });
 *
 * @throws MigrationError, before anything is connected, for a bad file; RangeError for a version of QEMU that does not have
 *   the machine type; the errors of `connect` for the main line; otherwise as `servePages`
 */
export async function serveFile(
  file: MigrationFile,
  connect: () => Promise<Connection>,
  options: ServeFileOptions,
): Promise<ServedGuest> {
  return whileAllowed(options, [file], () => serveVm(file, connect, options));
}

async function serveVm(
  file: MigrationFile,
  connect: () => Promise<Connection>,
  { makeScratch, notePlan, compat, checked, ...options }: ServeFileOptions,
): Promise<ServedGuest> {
  const note = notePlan === undefined ? {} : { notePlan };
  const vm = await openSavedVm(file, { makeScratch, devices: true, whole: true, ...note });
  try {
    const rules = compat === undefined ? {} : { rules: releaseRulesOf(vm.configuration?.machine, compat) };
    const iterables = await readIterables(file, vm.iterables);
    await checked?.(vm);
    const main = await connect().catch((error) => {
      throw options.recover === true ? new LiveError('split', nextOfServer.split, error, 'served-split') : error;
    });
    return await servePages(vm, { main, openChannel: connect }, { ...options, ...rules, iterables });
  } finally {
    await vm.ram.close();
  }
}
