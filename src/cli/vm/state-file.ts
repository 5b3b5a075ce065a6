/** Files that commands of a monitor write and read. The texts of errors are QEMU's. */
import { accessSync, closeSync, constants, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { FileAddress } from '../../io/migration-address.ts';
import { NodeFile, openDirect } from '../../io/node/file.ts';
import { requireNoGuest } from '../../io/node/file-lock.ts';
import { localError } from '../../io/node/system-text.ts';
import type { StateOutput } from '../../migrate/device-state.ts';

/** Opens the path of a set of descriptors. Undefined: it is another path. */
type OpenInSet = (path: string, flags: number, words: string) => number | undefined;

/** Makes the file of xen-save-devices-state. @throws Error with QEMU's text */
export function createStateFile(filename: string, isOld: boolean, openInSet: OpenInSet): StateOutput {
  const words = isOld ? `Unable to open ${filename}` : `Could not create '${filename}'`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC;
  const fd = openInSet(filename, flags, words) ?? opened(filename, flags, words);
  return {
    async write(bytes) {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    },
    async commit() {
      fsyncSync(fd);
      closeSync(fd);
    },
  };
}

function opened(filename: string, flags: number, words: string): number {
  requireNoGuest(filename);
  try {
    return openSync(filename, flags, 0o660);
  } catch (error) {
    throw localError(words, error);
  }
}

/** @throws Error with QEMU's text for a file that cannot be read */
export function requireFile(filename: string, words = `Could not open '${filename}'`): void {
  try {
    accessSync(filename, constants.R_OK);
  } catch (error) {
    throw localError(words, error);
  }
}

/** Requires that the file of xen-load-devices-state can be read. @throws Error with QEMU's text */
export function requireState(filename: string, isOld: boolean, openInSet: OpenInSet): void {
  const words = isOld ? `Unable to open ${filename}` : `Could not open '${filename}'`;
  const fd = openInSet(filename, constants.O_RDONLY, words);
  if (fd === undefined) requireFile(filename, words);
  else closeSync(fd);
}

/**
 * Makes the file of a migration with mapped-ram. What is before `offset` stays, everything behind it goes. `directIo`: pages
 * are written past the page cache, where the file system allows it.
 * @throws Error with QEMU's text
 */
export function createMappedFile({ filename, offset, fd: open }: FileAddress, directIo: boolean): NodeFile {
  let fd: number;
  let direct: number | undefined;
  if (open === undefined) requireNoGuest(filename);
  try {
    fd = open ?? openSync(filename, constants.O_RDWR | constants.O_CREAT, 0o600);
    ftruncateSync(fd, offset);
    // A descriptor of a client has no path.
    if (directIo && open === undefined) direct = openDirect(filename);
  } catch (error) {
    throw localError(`Could not create '${filename}'`, error);
  }
  return new NodeFile(fd, filename, offset, direct);
}
