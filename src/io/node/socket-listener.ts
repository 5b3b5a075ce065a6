/** Listens on TCP and unix sockets. */
import { statSync } from 'node:fs';
import { createServer, type ListenOptions as NodeListenOptions, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Connection, Listener } from '../connection.ts';
import type { InetAddress, UnixAddress } from '../migration-address.ts';
import type { InheritedListener } from './descriptor.ts';
import { type Endpoint, familyOf, inetUri, portOf, resolveInet } from './inet.ts';
import { watchFile } from './output-file.ts';
import { defaultSetupMs, lateHandshake, type PassingOptions, withinSetup } from './setup.ts';
import { connectionOver, connectionWithDescriptors } from './socket-connection.ts';
import { chooseReadMethod, type ReadMethod } from './socket-reader.ts';
import { localError, systemCode } from './system-text.ts';
import { securedSocket } from './tls-session.ts';
import { removeStale, requireSocketPath } from './unix-path.ts';

const defaultBacklog = 256;

/** Accepts the connections of one or more servers. */
class SocketListener implements Listener {
  uri = '';
  readonly #options: PassingOptions;
  readonly #method: ReadMethod;
  #servers: readonly Server[] = [];
  #released = () => {};
  /** Connections that nothing has accepted yet. */
  readonly #ready: Connection[] = [];
  readonly #waiting: ((connection: Connection | undefined) => void)[] = [];
  /** Ends the handshakes under way. */
  readonly #closing = new AbortController();

  constructor(options: PassingOptions, method: ReadMethod) {
    this.#options = options;
    this.#method = method;
  }

  /** Starts a server whose connections this listener accepts. @throws the system's error */
  async serve(at: NodeListenOptions | { fd: number }): Promise<Server> {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
    server.on('connection', (socket) => void this.#take(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ ...at, backlog: this.#options.backlog ?? defaultBacklog }, () => {
        server.removeListener('error', reject);
        resolve();
      });
    });
    // Such as EMFILE. The connection waits in the backlog.
    server.on('error', (error) => this.#options.onRefused?.(error, this.uri));
    return server;
  }

  /** Takes charge of servers. */
  begin(uri: string, servers: readonly Server[], released = () => {}): this {
    this.uri = uri;
    this.#servers = servers;
    this.#released = released;
    return this;
  }

  async #take(socket: Socket): Promise<void> {
    const peer = peerOf(socket, this.uri);
    const { tls, setupTimeoutMs: ms = defaultSetupMs, onRefused, descriptors } = this.#options;
    // It is read as in the direct way.
    const receives = descriptors !== undefined && socket.remoteAddress === undefined && this.#method === 'direct';
    if (receives) return this.#hand(connectionWithDescriptors(socket, peer, descriptors));
    if (tls === undefined) return this.#hand(connectionOver(socket, peer, this.#method));
    const limit = { signal: this.#closing.signal, ms, late: lateHandshake };
    try {
      const work = securedSocket(socket, peer, (each) => tls.secure(each));
      this.#hand(await withinSetup(work, limit, (connection) => connection.destroy()));
    } catch (error) {
      socket.destroy();
      if (!this.#closing.signal.aborted) onRefused?.(error as Error, peer);
    }
  }

  #hand(connection: Connection): void {
    const waiting = this.#waiting.shift();
    if (this.#closing.signal.aborted) connection.destroy();
    else if (waiting === undefined) this.#ready.push(connection);
    else waiting(connection);
  }

  accept(): Promise<Connection | undefined> {
    if (this.#closing.signal.aborted) return Promise.resolve(undefined);
    const ready = this.#ready.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    for (const server of this.#servers) server.close();
    this.#released();
    for (const connection of this.#ready.splice(0)) connection.destroy();
    for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }
}

function peerOf({ remoteAddress, remotePort }: Socket, uri: string): string {
  return remoteAddress === undefined ? uri : inetUri({ host: remoteAddress, port: remotePort as number });
}

/** Listens on a TCP port, the first free one up to `to`, on all addresses of the host. */
export async function listenInet(address: InetAddress, options: PassingOptions): Promise<Listener> {
  const listener = new SocketListener(options, options.method ?? (await chooseReadMethod()));
  const hosts = await listenHosts(address);
  const first = portOf(address);
  const last = Math.max(first, address.to ?? first);
  for (let port = first; ; port++) {
    try {
      const servers = await serveAll(listener, hosts, port);
      const chosen = (servers[0] as Server).address() as { address: string; port: number };
      const host = address.host === '' ? chosen.address : address.host;
      return listener.begin(inetUri({ host, port: chosen.port }), servers);
    } catch (error) {
      if (systemCode(error) !== 'EADDRINUSE') throw localError('Failed to bind socket', error);
      if (port >= last) throw localError('Failed to find an available port', error);
    }
  }
}

/** The literal addresses to listen on. Undefined: all of them. */
async function listenHosts(address: InetAddress): Promise<(string | undefined)[]> {
  if (address.host !== '') return (await resolveInet(address)).map(({ host }) => host);
  const family = familyOf(address);
  return [family === 4 ? '0.0.0.0' : family === 6 ? '::' : undefined];
}

/** Attempts to find one port that is free on all addresses. */
const portAttempts = 16;

/** Listens on one port of several addresses. Those that this host does not have are left out, if others remain. */
async function serveAll(
  listener: SocketListener,
  hosts: readonly (string | undefined)[],
  port: number,
): Promise<Server[]> {
  for (let attempt = 1; ; attempt++) {
    const servers: Server[] = [];
    let missing: unknown;
    try {
      for (const host of hosts) {
        const { port: chosen } = (servers[0]?.address() ?? { port }) as Endpoint;
        try {
          servers.push(await listener.serve({ ...(host === undefined ? {} : { host }), port: chosen }));
        } catch (error) {
          if (!['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(systemCode(error) ?? '')) throw error;
          missing = error;
        }
      }
      if (servers.length === 0) throw missing;
      return servers;
    } catch (error) {
      for (const server of servers) server.close();
      const isOthers = port === 0 && servers.length > 0 && systemCode(error) === 'EADDRINUSE';
      if (!isOthers || attempt === portAttempts) throw error;
    }
  }
}

/** Accepts connections on an inherited socket that listens already. Whoever made it removes a unix socket's file. */
export async function listenOnFd(
  { fd, path }: InheritedListener,
  name: string,
  options: PassingOptions,
): Promise<Listener> {
  const listener = new SocketListener(options, options.method ?? (await chooseReadMethod()));
  try {
    const server = await listener.serve({ fd });
    const at = server.address();
    if (at !== null && typeof at === 'object') return listener.begin(inetUri({ ...at, host: at.address }), [server]);
    return listener.begin(path === undefined ? name : `unix:${path}`, [server]);
  } catch (error) {
    throw localError(`cannot use file descriptor ${fd}`, error);
  }
}

/** Listens on a unix socket. A socket file that nothing listens on is replaced. */
export async function listenUnix({ path }: UnixAddress, options: PassingOptions): Promise<Listener> {
  requireSocketPath(path);
  const listener = new SocketListener(options, options.method ?? (await chooseReadMethod()));
  await removeStale(path);
  const watched = watchFile(path);
  try {
    return listener.begin(`unix:${path}`, [await listener.serve({ path })], watched.forget);
  } catch (error) {
    watched.forget();
    // libuv says EACCES in this case, too.
    const isMissing = statSync(dirname(path), { throwIfNoEntry: false }) === undefined;
    throw localError(`Failed to bind socket to ${path}`, isMissing ? { code: 'ENOENT' } : error);
  }
}
