/** The paths of unix sockets. */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { systemCode } from './system-text.ts';

/** The longest path of a unix socket, in bytes. */
const maxSocketPath = 107;

/** @throws Error with QEMU's text if a path is too long for a unix socket */
export function requireSocketPath(path: string): void {
  if (Buffer.byteLength(path) <= maxSocketPath) return;
  const message = `UNIX socket path '${path}' is too long`;
  throw Object.assign(new Error(message), { code: 'ENAMETOOLONG' });
}

/** Removes the file of a socket that nothing listens on. */
export async function removeStale(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  const isStale = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error) => resolve(systemCode(error) === 'ECONNREFUSED'));
  });
  if (isStale) unlinkSync(path);
}
