/** `vmferry qmp SOCKET --share URI`: one connection to a monitor, passed on to many clients until a signal ends it. */
import { type Connection, type Listener, PeerError } from '../../io/connection.ts';
import { parseMigrationUri } from '../../io/migration-address.ts';
import { listenAt } from '../../io/node/listen.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { serveLine } from '../../qmp/serve-line.ts';
import { SharedMonitor } from '../../qmp/shared-monitor.ts';
import { UsageError } from '../exit-codes.ts';
import { interruptedBy, onFirstSignal } from '../live/early-signals.ts';
import { openMonitor } from './monitor.ts';

/**
 * Connects to a monitor, and passes it on until a signal ends that.
 * @throws UsageError if `uri` is neither unix: nor tcp:, or another client holds the monitor; PeerError if the monitor ends
 */
export async function share(socket: string, uri: string): Promise<void> {
  const address = parseMigrationUri(uri);
  if (address.transport !== 'socket' || address.type === 'fd') {
    throw new UsageError(`expected --share unix:PATH or tcp:HOST:PORT, got ${uri}`);
  }
  const controller = new AbortController();
  const ignoreSignals = onFirstSignal((signal) => controller.abort(interruptedBy(signal)));
  const client = await openMonitor(socket, controller.signal);
  try {
    await shareMonitor(client, await listenAt(address), controller.signal);
  } finally {
    ignoreSignals();
    await client.close();
  }
}

/**
 * Passes the monitor on until `signal` is aborted. Closes the listener, and ends all clients.
 * @throws PeerError if the monitor ends; the reason of `signal`
 */
async function shareMonitor(client: QmpClient, listener: Listener, signal: AbortSignal): Promise<never> {
  const monitor = new SharedMonitor(client);
  const lines = new Set<Connection>();
  const accepting = (async () => {
    for (let line = await listener.accept(); line !== undefined; line = await listener.accept()) {
      const each = line;
      lines.add(each);
      void serveLine(monitor, each).then(() => lines.delete(each));
    }
  })();
  process.stderr.write(`listening on ${listener.uri}\n`);
  try {
    await Promise.race([client.closed, aborted(signal)]);
    throw new PeerError('the monitor ended the connection: QEMU has ended, or closed it. Nothing is shared any more');
  } finally {
    await listener.close();
    await accepting;
    for (const line of lines) line.destroy();
  }
}

const aborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    const end = () => reject(signal.reason);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
