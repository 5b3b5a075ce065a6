/** A copy of a file that shares its blocks where the file system can (reflink), and otherwise has holes for zeros. */
import { closeSync, constants, copyFileSync, openSync, statSync } from 'node:fs';
import type { Abortable } from '../abort.ts';
import { NodeFile } from './file.ts';
import { dataFinder } from './holes.ts';

/** Bytes copied at a time. Zeros of a part of it become a hole. */
const pieceBytes = 1 << 20;
const partBytes = 64 << 10;
const zeros = Buffer.alloc(partBytes);

/**
 * Copies a file to a new name. Returns whether the copy shares the file's blocks.
 * @throws Error with the system's `code`, also if the new name exists
 */
export async function copyFile(path: string, copy: string, { signal }: Abortable = {}): Promise<boolean> {
  try {
    copyFileSync(path, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
  }
  const source = new NodeFile(openSync(path, 'r'), path, statSync(path).size);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  try {
    const target = new NodeFile(openSync(copy, flags, 0o600), copy, 0);
    try {
      await copySparse(source, target, signal);
    } finally {
      closeSync(target.fd);
    }
  } finally {
    closeSync(source.fd);
  }
  return false;
}

async function copySparse(source: NodeFile, target: NodeFile, signal: Abortable['signal']): Promise<void> {
  const findData = (await dataFinder(source)) ?? ((position: number) => position);
  const piece = Buffer.alloc(pieceBytes);
  for (let at = findData(0); at < source.size; at = findData(at)) {
    signal?.throwIfAborted();
    const count = await source.read(piece, at);
    if (count === 0) break;
    for (let from = 0; from < count; from += partBytes) {
      const part = piece.subarray(from, Math.min(count, from + partBytes));
      if (!part.equals(zeros.subarray(0, part.length))) target.write(part, at + from);
    }
    at += count;
  }
  target.truncate(source.size);
}
