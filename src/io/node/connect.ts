/** Connects to the other side of a migration, over every transport. */
import type { Socket } from 'node:net';
import { type Connection, PeerError } from '../connection.ts';
import {
  type FdAddress,
  formatMigrationUri,
  type InetAddress,
  type MigrationAddress,
  type UnixAddress,
} from '../migration-address.ts';
import { connectionOnFd, connectionOnStdio, descriptorOf, findListener } from './descriptor.ts';
import { createAt } from './file-connection.ts';
import { inetUri, nameOf, resolveInet } from './inet.ts';
import { startProgram } from './program.ts';
import { type ConnectOptions, defaultSetupMs, lateHandshake, withinSetup } from './setup.ts';
import { connectionOver } from './socket-connection.ts';
import { connectPaused } from './socket-reader.ts';
import { localError, systemCode, systemText } from './system-text.ts';
import { securedConnection, securedSocket } from './tls-session.ts';
import { requireSocketPath } from './unix-path.ts';

export type { ConnectOptions } from './setup.ts';

/**
 * Connects to an address: `tcp`, `unix`, `fd` and `exec` give a line, `file` a file that is written from its offset on,
 * and `stdio` standard output.
 * @throws PeerError with QEMU's text if the peer cannot be reached or TLS fails; Error with the system's `code` for what
 *   fails on this host, such as a file that cannot be created; the reason of `signal` once that is aborted
 */
export async function connectTo(address: MigrationAddress, options: ConnectOptions = {}): Promise<Connection> {
  const { signal, setupTimeoutMs: ms = defaultSetupMs } = options;
  signal?.throwIfAborted();
  const attempt = new Attempt(address, options);
  try {
    const late = () => attempt.lateError();
    return await withinSetup(attempt.run(), { signal, ms, late }, (connection) => connection.destroy());
  } catch (error) {
    attempt.give();
    throw error;
  }
}

/** One attempt to connect. */
class Attempt {
  readonly #address: MigrationAddress;
  readonly #options: ConnectOptions;
  /** What is open, and is closed if the attempt ends early. */
  #socket: Socket | undefined;
  #connection: Connection | undefined;
  #isOver = false;

  constructor(address: MigrationAddress, options: ConnectOptions) {
    this.#address = address;
    this.#options = options;
  }

  /** Closes what is open. */
  give(): void {
    this.#isOver = true;
    this.#socket?.destroy();
    this.#connection?.destroy();
  }

  lateError(): PeerError {
    const isConnected = this.#connection !== undefined || this.#socket?.connecting === false;
    if (!isConnected) return connectError(targetOf(this.#address), { code: 'ETIMEDOUT' });
    return lateHandshake();
  }

  async run(): Promise<Connection> {
    const address = this.#address;
    if (address.transport === 'socket' && address.type === 'inet') return this.#connectInet(address);
    if (address.transport === 'socket' && address.type === 'unix') return this.#connectUnix(address);
    const name = formatMigrationUri(address);
    if (address.transport === 'socket') {
      this.#connection = this.#connectDescriptor(address, name);
    } else if (address.transport === 'exec') {
      this.#connection = await startProgram(address.args, name);
    } else if (address.transport === 'file') {
      this.#connection = createAt(address, name);
    } else {
      this.#connection = connectionOnStdio('write');
    }
    const { tls } = this.#options;
    if (tls === undefined) return this.#connection;
    return securedConnection(this.#connection, (socket) => tls.secure(socket, undefined));
  }

  #connectDescriptor({ str, fd: passed }: FdAddress, name: string): Connection {
    const method = this.#options.method ?? 'data';
    if (passed !== undefined) return connectionOnFd(passed, { direction: 'write', name, method, isPassed: true });
    const fd = descriptorOf(str);
    if (findListener(fd) !== undefined) throw localError(`cannot use file descriptor ${fd}`, { code: 'ENOTCONN' });
    return connectionOnFd(fd, { direction: 'write', name, method });
  }

  async #connectInet(address: InetAddress): Promise<Connection> {
    const endpoints = await resolveInet(address).catch((error) => {
      throw error instanceof RangeError
        ? error
        : new PeerError(error.message, { code: systemCode(error), cause: error });
    });
    let last: unknown;
    for (const endpoint of endpoints) {
      try {
        await this.#open(endpoint);
      } catch (error) {
        last = error;
        continue;
      }
      return this.#finish(inetUri(endpoint), address.host);
    }
    throw connectError(nameOf(address), last);
  }

  async #connectUnix({ path }: UnixAddress): Promise<Connection> {
    requireSocketPath(path);
    await this.#open({ path }).catch((error) => {
      throw connectError(path, error);
    });
    return this.#finish(`unix:${path}`, undefined);
  }

  async #open(to: { host: string; port: number } | { path: string }): Promise<void> {
    if (this.#isOver) throw new Error('the attempt is over');
    const socket = connectPaused(to);
    this.#socket = socket;
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.on('error', reject);
      socket.once('close', () => reject(new Error('the attempt is over')));
    });
  }

  async #finish(name: string, host: string | undefined): Promise<Connection> {
    const socket = this.#socket as Socket;
    const { tls, method } = this.#options;
    if (tls !== undefined) return securedSocket(socket, name, (each) => tls.secure(each, host));
    // The side that connects reads only a return path. The direct way would lose what comes just before the line breaks.
    return connectionOver(socket, name, method ?? 'data');
  }
}

function targetOf(address: MigrationAddress): string {
  if (address.transport !== 'socket') return formatMigrationUri(address);
  if (address.type === 'inet') return nameOf(address);
  return address.type === 'unix' ? address.path : address.str;
}

function connectError(target: string, error: unknown): PeerError {
  const words = `Failed to connect to '${target}': ${systemText(error)}`;
  return new PeerError(words, { code: systemCode(error), cause: error });
}
