/** A QMP server of the tests at a unix socket. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { QmpServer } from '../../src/qmp/server.ts';

/** Where it listens, and what ends it. With `server` undefined it accepts and says nothing, as a busy monitor does. */
export async function serveSocket(server?: QmpServer): Promise<{ path: string; close(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), 'vmferry-qmp-'));
  const path = join(directory, 'socket');
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    if (server === undefined) return;
    const session = server.connect((text) => socket.write(text));
    socket.on('data', (bytes) => void session.receive(bytes));
    socket.on('close', () => server.disconnect(session));
  });
  listener.listen(path);
  await once(listener, 'listening');
  return {
    path,
    async close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, 'close');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
