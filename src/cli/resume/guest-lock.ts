/** The lock on a FILE that guests run on: shared among them, and respected by everything of vmferry that writes files. */
import { closeSync, openSync } from 'node:fs';
import { accessing } from '../../io/node/file-error.ts';
import { lockFile } from '../../io/node/file-lock.ts';
import { UsageError } from '../exit-codes.ts';
import { note, warn } from '../messages.ts';

/** What is said where nothing locks the file. */
export const unlocked = (path: string): string => `Nothing may change ${path} while a guest runs on it.`;

/** Locks a file. The caller closes the descriptor; the lock ends when all copies of it are closed. @throws UsageError */
export function lockForGuests(path: string): number {
  const fd = accessing({ verb: 'read', path }, () => openSync(path, 'r'));
  const answer = lockFile(fd, 'shared');
  if (answer === 'held') note(`${path} is locked: it must not change while a guest runs on it`);
  else if (answer === 'unknown') warn(`${path} could not be locked (no program flock). ${unlocked(path)}`);
  else {
    closeSync(fd);
    throw new UsageError(`${path} is being written by another process, which has locked it`);
  }
  return fd;
}

/** Does work while a file is locked. */
export async function withLock<Result>(path: string, work: () => Promise<Result>): Promise<Result> {
  const fd = lockForGuests(path);
  try {
    return await work();
  } finally {
    closeSync(fd);
  }
}
