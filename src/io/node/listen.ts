/** Waits for the other side of a migration, over every transport. */
import type { Connection, Listener } from '../connection.ts';
import { type FdAddress, formatMigrationUri, type MigrationAddress } from '../migration-address.ts';
import { connectionOnFd, connectionOnStdio, descriptorOf, findListener } from './descriptor.ts';
import { openAt } from './file-connection.ts';
import { startProgram } from './program.ts';
import { defaultSetupMs, type ListenOptions, lateHandshake, type PassingOptions, withinSetup } from './setup.ts';
import { listenInet, listenOnFd, listenUnix } from './socket-listener.ts';
import { chooseReadMethod } from './socket-reader.ts';
import { securedConnection } from './tls-session.ts';

export type { ListenOptions } from './setup.ts';

/**
 * Listens at an address. `tcp`, `unix` and an `fd` that listens accept any number of connections. `exec`, `file`, `stdio`
 * and an `fd` that is connected have one, and then undefined.
 * @throws Error with QEMU's text, and the system's `code` if there is one, if that is impossible; the reason of `signal`
 *   if that is aborted
 */
export async function listenAt(address: MigrationAddress, options: PassingOptions = {}): Promise<Listener> {
  const { signal } = options;
  signal?.throwIfAborted();
  const listener = await open(address, options);
  if (signal?.aborted) {
    await listener.close();
    throw signal.reason;
  }
  if (signal === undefined) return listener;
  const close = () => {
    signal.removeEventListener('abort', close);
    return listener.close();
  };
  signal.addEventListener('abort', close, { once: true });
  return { uri: listener.uri, accept: () => listener.accept(), close };
}

async function open(address: MigrationAddress, options: PassingOptions): Promise<Listener> {
  const name = formatMigrationUri(address);
  if (address.transport === 'exec') return single(await startProgram(address.args, name), options);
  if (address.transport === 'file') return single(openAt(address, name), options);
  if (address.transport === 'stdio') return single(connectionOnStdio('read'), options, '-');
  if (address.type === 'fd') return openDescriptor(address, name, options);
  return address.type === 'unix' ? listenUnix(address, options) : listenInet(address, options);
}

/** A descriptor may be a socket that listens, or a line that is connected. */
async function openDescriptor(address: FdAddress, name: string, options: ListenOptions): Promise<Listener> {
  const isPassed = address.fd !== undefined;
  const fd = address.fd ?? numberOf(address.str);
  const inherited = findListener(fd, isPassed);
  if (inherited !== undefined) return listenOnFd(inherited, name, options);
  const method = options.method ?? (await chooseReadMethod());
  return single(connectionOnFd(fd, { direction: 'read', name, method, isPassed }), options);
}

/** As in QEMU, what begins with a digit is meant as a number here. */
function numberOf(str: string): number {
  if (!/^\d+\D/.test(str)) return descriptorOf(str);
  throw Object.assign(new Error(`Invalid file descriptor number '${str}'`), { code: 'EINVAL' });
}

/** A listener with one connection, which exists already. */
function single(connection: Connection, options: ListenOptions, uri = connection.name): Listener {
  let left: Connection | undefined = connection;
  return {
    uri,
    async accept() {
      const taken = left;
      left = undefined;
      return taken === undefined ? undefined : secured(taken, options);
    },
    async close() {
      left?.destroy();
      left = undefined;
    },
  };
}

/** The connection after its handshake, or undefined if that failed. */
async function secured(connection: Connection, options: ListenOptions): Promise<Connection | undefined> {
  const { tls, signal, setupTimeoutMs: ms = defaultSetupMs, onRefused } = options;
  if (tls === undefined) return connection;
  const work = securedConnection(connection, (socket) => tls.secure(socket));
  try {
    return await withinSetup(work, { signal, ms, late: lateHandshake }, (each) => each.destroy());
  } catch (error) {
    connection.destroy();
    onRefused?.(error as Error, connection.name);
    return undefined;
  }
}
