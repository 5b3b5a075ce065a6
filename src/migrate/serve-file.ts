/** Serves the VM in a file (`page-server.ts`). As with `sendFile`, the file is checked before anything is connected. */
import type { Connection } from '../io/connection.ts';
import type { MigrationFile } from '../read/open.ts';
import { type FileGuestOptions, withFileGuest } from './file-guest.ts';
import { LiveError, nextOfServer } from './live-error.ts';
import { servePages } from './page-server.ts';
import type { ServedGuest, ServeOptions } from './serve-options.ts';

/** How the VM in a file is served. */
export interface ServeFileOptions extends Omit<ServeOptions, 'iterables' | 'rules'>, FileGuestOptions {}

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
  return withFileGuest(file, options, async (vm, facts) => {
    const main = await connect().catch((error) => {
      throw options.recover === true ? new LiveError('split', nextOfServer.split, error, 'served-split') : error;
    });
    return servePages(vm, { main, openChannel: connect }, { ...options, ...facts });
  });
}
