/**
 * Sends a multifd set to a waiting QEMU, as a source does: connects the main stream first, then each channel, and then
 * sends on all of them at the same time.
 */
import { createReadStream } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import type { ByteSink } from '../../src/node.ts';

export interface SetFiles {
  main: string;
  channels: readonly string[];
}

/** Connections to a waiting QEMU as sinks, the main stream's first. A write completes when the system has taken it. */
export async function connectSinks(listen: string, channels: number): Promise<{ sinks: ByteSink[]; end: () => void }> {
  const sockets: Socket[] = [];
  for (let i = 0; i <= channels; i++) sockets.push(await open(listen));
  const sinks = sockets.map((socket) => ({
    write: (bytes: Uint8Array) =>
      new Promise<void>((resolve, reject) => {
        socket.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
  }));
  return { sinks, end: () => sockets.forEach((socket) => void socket.end()) };
}

/** Resolves when everything is sent, or the receiver has hung up; the receiver itself reports its verdict. */
export async function sendSet(listen: string, { main, channels }: SetFiles): Promise<void> {
  const files = [main, ...channels];
  const sockets: Socket[] = [];
  try {
    for (const _ of files) sockets.push(await open(listen));
    await Promise.all(
      sockets.map((socket, i) => {
        createReadStream(files[i] as string).pipe(socket);
        socket.resume();
        return finished(socket, { readable: false }).catch(() => {});
      }),
    );
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.once('error', reject);
  });
}
