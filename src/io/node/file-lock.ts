/**
 * Locks on files that guests run on. Node has no call for them, so the program `flock` of util-linux makes them, on a descriptor
 * that it inherits. The lock belongs to the open file, so it lasts until the last process that has the descriptor ends: vmferry,
 * and each QEMU that inherits it. Nothing is left behind by a process that is killed.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';

/** `held`: the lock is there. `refused`: another process has a lock against it. `unknown`: this host cannot tell. */
export type LockAnswer = 'held' | 'refused' | 'unknown';

/** Locks an open file, without waiting. The lock ends when all copies of the descriptor are closed. */
export function lockFile(fd: number, kind: 'shared' | 'exclusive'): LockAnswer {
  const { status, error } = spawnSync('flock', [kind === 'shared' ? '-s' : '-x', '-n', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  });
  if (error !== undefined || status === null) return 'unknown';
  return status === 0 ? 'held' : status === 1 ? 'refused' : 'unknown';
}

/** How often a writer asks, and how long it waits in between, in ms: other writers have the lock for a moment. */
const attempts = 3;
const pauseMs = 20;

/** @throws Error with the code EBUSY if a guest runs on the file */
export function requireNoGuest(path: string): void {
  const fd = openReadable(path);
  if (fd === undefined) return;
  try {
    for (let attempt = 1; lockFile(fd, 'exclusive') === 'refused'; attempt++) {
      if (attempt === attempts) {
        const message = `${path} is in use: a guest runs on it`;
        throw Object.assign(new Error(message), { code: 'EBUSY' });
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
    }
  } finally {
    closeSync(fd);
  }
}

/** Undefined for a file that this user may not read: then nothing can be known. */
function openReadable(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}
