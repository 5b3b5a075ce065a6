/** Files that commands of a monitor write and read. The texts of errors are QEMU's. */
import { accessSync, closeSync, constants, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { NodeFile } from '../../io/node/file.ts';
import { localError } from '../../io/node/system-text.ts';
import type { StateOutput } from '../../migrate/device-state.ts';

/** Makes the file of xen-save-devices-state. @throws Error with QEMU's text */
export function createStateFile(filename: string, isOld: boolean): StateOutput {
  let fd: number;
  try {
    fd = openSync(filename, 'w', 0o660);
  } catch (error) {
    throw localError(isOld ? `Unable to open ${filename}` : `Could not create '${filename}'`, error);
  }
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

/** @throws Error with QEMU's text for a file that cannot be read */
export function requireFile(filename: string, isOld = false): void {
  try {
    accessSync(filename, constants.R_OK);
  } catch (error) {
    throw localError(isOld ? `Unable to open ${filename}` : `Could not open '${filename}'`, error);
  }
}

/**
 * Makes the file of a migration with mapped-ram. What is before `offset` stays, everything behind it goes.
 * @throws Error with QEMU's text
 */
export function createMappedFile(filename: string, offset: number): NodeFile {
  let fd: number;
  try {
    fd = openSync(filename, constants.O_RDWR | constants.O_CREAT, 0o600);
    ftruncateSync(fd, offset);
  } catch (error) {
    throw localError(`Could not create '${filename}'`, error);
  }
  return new NodeFile(fd, filename, offset);
}
