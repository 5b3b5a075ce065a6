/** `--private`: guests run on a copy of FILE, which shares its blocks where the file system can. */
import { randomBytes } from 'node:crypto';
import { accessSync, constants, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { watchFile } from '../../io/node/output-file.ts';
import { copyFile } from '../../io/node/private-copy.ts';
import { parseLocation } from '../../read/location.ts';
import type { MigrationFile } from '../../read/open.ts';
import { openInput } from '../input.ts';
import type { Live } from '../live/live-command.ts';
import { note } from '../messages.ts';
import { withLock } from './guest-lock.ts';

/** Copies FILE to a new name, while it is locked, and opens the copy. */
export async function openCopy(location: string, copy: string, live: Live): Promise<MigrationFile> {
  const { path, offset } = parseLocation(location);
  const isShared = await withLock(path, () => copyFile(path, copy, live));
  note(`${copy} is ${isShared ? 'a reflink' : 'a copy'} of ${path}`);
  return openInput(offset === undefined ? copy : `${copy},offset=${offset}`, { discover: false });
}

/**
 * Works with a temporary copy of FILE, which is removed at the end, or by `remove` as soon as those who need it have opened
 * it.
 */
export async function withPrivateCopy(
  location: string,
  live: Live,
  work: (copy: MigrationFile, remove: () => void) => Promise<void>,
): Promise<void> {
  const copy = join(
    folderFor(parseLocation(location).path),
    `.vmferry-${process.pid}-${randomBytes(4).toString('hex')}`,
  );
  const watch = watchFile(copy);
  const remove = () => {
    rmSync(copy, { force: true });
    watch.forget();
  };
  try {
    const file = await openCopy(location, copy, live);
    try {
      await work(file, remove);
    } finally {
      await file.close();
    }
  } finally {
    remove();
  }
}

/** Where a copy may share the blocks of a file; otherwise where temporary files are. */
function folderFor(path: string): string {
  try {
    accessSync(dirname(path), constants.W_OK);
    return dirname(path);
  } catch {
    return tmpdir();
  }
}
