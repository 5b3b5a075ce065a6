/**
 * Output that cannot be written beside and renamed: FIFOs, devices, sockets. It is written in order, where it is, and
 * the event loop stays free meanwhile, so that a reader that stalls can be interrupted.
 */
import { close, constants, fsync, open, statSync, write } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const openAsync = promisify(open);
const writeAsync = promisify(write);
const closeAsync = promisify(close);
const fsyncAsync = promisify(fsync);

/** How often a FIFO is tried that has no reader yet. */
const retryMs = 50;

export interface SequentialOutput {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export async function openInPlace(path: string): Promise<SequentialOutput> {
  return statSync(path).isFIFO() ? openFifo(path) : openDevice(path);
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

/** Opens a FIFO for writing. An open that waits in the kernel could not be interrupted. */
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
      for (let done = 0; done < bytes.length; ) done += (await writeAsync(fd, bytes, done)).bytesWritten;
    },
    async close() {
      // Late write errors of a disk show here; what cannot be synced, such as /dev/null, says so at once.
      if (statSync(path).isBlockDevice()) await fsyncAsync(fd);
      await closeAsync(fd);
    },
  };
}
