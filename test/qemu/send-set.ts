/**
 * Sends a multifd set to a QEMU that waits for one, as a source does: the main connection first, then one for each channel,
 * and when all are there everything at the same time.
 */
import { createReadStream } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import type { ByteSink } from '../../src/node.ts';

export interface SetFiles {
  main: string;
  channels: readonly string[];
}

/** Connections to a QEMU that waits, as sinks: that of the main stream first. A write is done when the system has it. */
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

/** Done when all is sent, or the receiver has hung up: what it makes of it, it says itself. */
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
