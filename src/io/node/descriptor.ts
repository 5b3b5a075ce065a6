/** Connections over what is already open: inherited descriptors, standard input and standard output. */
import { fstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from 'node:fs';
import type { Connection } from '../connection.ts';
import type { MigrationAddress } from '../migration-address.ts';
import { FileConnection } from './file-connection.ts';
import { connectionOverFd, fileWords, socketWords } from './socket-connection.ts';
import type { ReadMethod } from './socket-reader.ts';
import { localError, systemCode } from './system-text.ts';

/** The number of a descriptor that an address names. @throws Error `ENOENT` with QEMU's text for anything else */
export function descriptorOf(str: string): number {
  if (/^\d{1,9}$/.test(str)) return Number(str);
  throw Object.assign(new Error(`File descriptor named '${str}' has not been found`), { code: 'ENOENT' });
}

/**
 * Requires that the descriptor of an address can be used. Call this before anything is opened: a number that nothing was
 * inherited under may be given to the next file.
 * @throws Error with the system's `code` for an `fd:` address whose descriptor is not open, is internal to Node, or works
 *   in the other direction only
 */
export function requireDescriptor(address: MigrationAddress, direction: Direction): void {
  if (address.transport === 'socket' && address.type === 'fd') statOf(descriptorOf(address.str), direction);
}

/** Standard input or standard output. It has one direction, even if it is a socket: nobody expects an answer on it. */
export function connectionOnStdio(direction: Direction): Connection {
  return direction === 'read'
    ? connectionOnFd(0, { direction, name: 'standard input', isOneWay: true, method: 'direct' })
    : connectionOnFd(1, { direction, name: 'standard output', isOneWay: true, method: 'data' });
}

/** What is done with a descriptor that works in one direction. */
export type Direction = 'read' | 'write';

/** How a descriptor is used. */
interface FdUse {
  direction: Direction;
  name: string;
  /** A socket is not used in the other direction. */
  isOneWay?: boolean;
  /** How a socket or a pipe is read. */
  method: ReadMethod;
  /** A client has passed it: it is what it is, closed if it cannot be used. */
  isPassed?: boolean;
}

/**
 * A connection over a descriptor. Sockets work in both directions unless `isOneWay`, everything else in the one that is
 * wanted.
 * @throws Error with the system's `code` if it cannot be used
 */
export function connectionOnFd(fd: number, use: FdUse): Connection {
  const { direction, name, isOneWay = false, method, isPassed = false } = use;
  const stat = isPassed ? fstatSync(fd) : statOf(fd, direction);
  const reads = direction === 'read';
  if (stat.isSocket()) {
    const directions = { reads: reads || !isOneWay, writes: !reads || !isOneWay };
    return connectionOverFd(fd, name, { ...directions, words: socketWords, method });
  }
  if (stat.isFIFO()) return connectionOverFd(fd, name, { reads, writes: !reads, words: fileWords, method });
  return new FileConnection({ fd, name, start: null, reads, writes: !reads });
}

function statOf(fd: number, direction?: Direction): Stats {
  let stat: Stats;
  try {
    stat = fstatSync(fd);
  } catch (error) {
    throw unusable(fd, error);
  }
  const isFile = stat.isFile() || stat.isCharacterDevice() || stat.isBlockDevice();
  if (!(isFile || stat.isSocket() || stat.isFIFO())) throw unusable(fd, { code: 'EINVAL' });
  // Node's own pipes end where they begin. Nobody else is at the other end.
  if (stat.isFIFO() && isOwnPipe(fd)) throw unusable(fd, { code: 'EBADF' });
  if (direction !== undefined && !stat.isSocket() && !works(fd, direction)) throw unusable(fd, { code: 'EBADF' });
  return stat;
}

const unusable = (fd: number, error: unknown): Error => localError(`cannot use file descriptor ${fd}`, error);

/** What a system without /proc cannot say. */
function fromProc<Fact>(read: () => Fact, unknown: Fact): Fact {
  try {
    return read();
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    return unknown;
  }
}

/** Whether this process has both ends of an anonymous pipe. */
function isOwnPipe(fd: number): boolean {
  return fromProc(() => {
    const pipe = readlinkSync(`/proc/self/fd/${fd}`);
    if (!pipe.startsWith('pipe:')) return false;
    const others = readdirSync('/proc/self/fd').filter((other) => {
      return Number(other) !== fd && fromProc(() => readlinkSync(`/proc/self/fd/${other}`), '') === pipe;
    });
    return others.some((other) => accessOf(Number(other)) !== accessOf(fd));
  }, false);
}

/** The access mode of a descriptor: 0 reads, 1 writes, 2 does both. */
function accessOf(fd: number): number {
  const [, flags = '2'] = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')) ?? [];
  return Number.parseInt(flags, 8) & 3;
}

function works(fd: number, direction: Direction): boolean {
  const access = fromProc(() => accessOf(fd), 2);
  return access === 2 || access === (direction === 'read' ? 0 : 1);
}

/** A flag of /proc/net/unix, and a state of /proc/net/tcp. */
const [acceptsConnections, isListening] = [0x10000, '0A'];

/** A socket that listens. */
export interface InheritedListener {
  fd: number;
  /** Of a unix socket that can be found by its path. */
  path?: string;
}

/**
 * The socket behind a descriptor, if it listens. Node has no call that asks for that, so it is looked up where Linux lists
 * its sockets. Elsewhere every socket counts as connected.
 */
export function findListener(fd: number, isPassed = false): InheritedListener | undefined {
  const stat = isPassed ? fstatSync(fd) : statOf(fd);
  if (!stat.isSocket()) return undefined;
  const inode = String(fstatSync(fd, { bigint: true }).ino);
  const rows = (name: string) =>
    fromProc(() => readFileSync(`/proc/net/${name}`, 'latin1'), '')
      .split('\n')
      .map((row) => row.trim().split(/\s+/));
  const isInet = ['tcp', 'tcp6'].some((name) =>
    rows(name).some(({ 3: state, 9: number }) => number === inode && state === isListening),
  );
  if (isInet) return { fd };
  const unix = rows('unix').find(({ 6: number }) => number === inode);
  if (unix === undefined || (Number.parseInt(unix[3] ?? '', 16) & acceptsConnections) === 0) return undefined;
  const path = Buffer.from(unix.slice(7).join(' '), 'latin1').toString();
  return path.startsWith('/') ? { fd, path } : { fd };
}
