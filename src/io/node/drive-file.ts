/** Opens the file of a disk for reading and writing. */
import { constants, fstatSync, openSync } from 'node:fs';
import { deviceSize } from '../file-handle.ts';
import { NodeFile } from './file.ts';
import { localError } from './system-text.ts';

/** The file of a disk. */
export interface DriveFile {
  store: NodeFile;
  /** Bytes that it takes on its own disk. */
  allocatedBytes(): number;
}

/** Opens a regular file or a block device. @throws Error with QEMU's text, and Node's `code` */
export async function openDriveFile(path: string): Promise<DriveFile> {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR);
  } catch (error) {
    throw localError(`Could not open '${path}'`, error);
  }
  const stat = fstatSync(fd);
  const probe = new NodeFile(fd, path, stat.size);
  const size = stat.isBlockDevice()
    ? await deviceSize(async (at) => (await probe.read(new Uint8Array(1), at)) === 1)
    : stat.size;
  return { store: new NodeFile(fd, path, size), allocatedBytes: () => fstatSync(fd).blocks * 512 };
}
