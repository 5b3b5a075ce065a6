/**
 * Clients of a QMP server over lines. As in QEMU, a monitor has one client at a time: the next one is greeted when it has
 * gone.
 */
import type { Connection, Listener } from '../io/connection.ts';
import { type SessionHub, serveClient } from './serve-line.ts';
import type { QmpServer } from './server.ts';

/** A monitor: a listener, and its client. */
export interface Monitor {
  /** Resolves when all answers so far have left. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Serves one client after another. */
export function serveMonitor(server: QmpServer, listener: Listener): Monitor {
  let flush: () => Promise<void> = () => Promise.resolve();
  let present: Connection | undefined;
  const monitor = {};
  const hub: SessionHub = {
    connect: (write) => server.connect(write, monitor),
    disconnect: (session) => server.disconnect(session),
  };
  const serve = async () => {
    for (;;) {
      const line = await listener.accept();
      if (line === undefined) return;
      present = line;
      const client = serveClient(hub, line);
      flush = client.flush;
      await client.gone;
    }
  };
  void serve();
  return {
    flush: () => flush(),
    async close() {
      await listener.close();
      present?.destroy();
    },
  };
}
