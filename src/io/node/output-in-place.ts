/**
 * Output that cannot be written beside its name and renamed: FIFOs, devices, sockets. It is written in place, in order,
 * and without blocking the event loop, so that a stalled reader can be interrupted.
 */
import { close, constants, fsync, open, statSync, write } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fileError } from './file-error.ts';

const openAsync = promisify(open);
const writeAsync = promisify(write);
const closeAsync = promisify(close);
const fsyncAsync = promisify(fsync);

/** Interval between attempts to open a FIFO that has no reader yet. */
const retryMs = 50;

export interface SequentialOutput {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export async function openInPlace(path: string): Promise<SequentialOutput> {
  try {
    return statSync(path).isFIFO() ? await openFifo(path) : await openDevice(path);
  } catch (error) {
    throw fileError(error, { verb: 'write', path });
  }
}

async function openFifo(path: string): Promise<SequentialOutput> {
  const socket = new Socket({ fd: await waitForReader(path), readable: false, writable: true });
  let failure: Error | undefined;
  socket.on('error', (error) => {
    failure = error;
  });
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) reject(failure);
        else socket.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
    close: () => new Promise((resolve) => (socket.destroyed ? resolve() : socket.end(resolve))),
  };
}

/** Opens a FIFO for writing. Retries instead of waiting in the kernel, since such an open cannot be interrupted. */
async function waitForReader(path: string): Promise<number> {
  for (;;) {
    try {
      return await openAsync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
      await sleep(retryMs);
    }
  }
}

async function openDevice(path: string): Promise<SequentialOutput> {
  const fd = await openAsync(path, constants.O_WRONLY);
  return {
    async write(bytes) {
      try {
        for (let done = 0; done < bytes.length; ) done += (await writeAsync(fd, bytes, done)).bytesWritten;
      } catch (error) {
        throw fileError(error, { verb: 'write', path });
      }
    },
    async close() {
      // fsync reports late write errors of a disk. It would fail on what cannot be synced, such as /dev/null.
      if (statSync(path).isBlockDevice()) await fsyncAsync(fd);
      await closeAsync(fd);
    },
  };
}
