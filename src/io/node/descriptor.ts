/** Connections over what is already open: inherited descriptors, standard input and standard output. */
import { fstatSync } from 'node:fs';
import type { Connection } from '../connection.ts';
import { FileConnection } from './file-connection.ts';
import { connectionOverFd, fileWords, socketWords } from './socket-connection.ts';
import { localError } from './system-text.ts';

/** The number of a descriptor that an address names. @throws Error `ENOENT` with QEMU's text for anything else */
export function descriptorOf(str: string): number {
  if (/^\d{1,9}$/.test(str)) return Number(str);
  throw Object.assign(new Error(`File descriptor named '${str}' has not been found`), { code: 'ENOENT' });
}

/** Standard input or standard output. It has one direction, even if it is a socket: nobody expects an answer on it. */
export function connectionOnStdio(direction: Direction): Connection {
  return direction === 'read'
    ? connectionOnFd(0, 'read', 'standard input', true)
    : connectionOnFd(1, 'write', 'standard output', true);
}

/** What is done with a descriptor that works in one direction. */
type Direction = 'read' | 'write';

/**
 * A connection over a descriptor. Sockets work in both directions unless `isOneWay`, everything else in the one that is
 * wanted.
 * @throws Error with the system's `code` if it is not open
 */
export function connectionOnFd(fd: number, direction: Direction, name: string, isOneWay = false): Connection {
  let stat: ReturnType<typeof fstatSync>;
  try {
    stat = fstatSync(fd);
  } catch (error) {
    throw localError(`cannot use file descriptor ${fd}`, error);
  }
  const reads = direction === 'read';
  if (stat.isSocket()) {
    return connectionOverFd(fd, name, { reads: reads || !isOneWay, writes: !reads || !isOneWay, words: socketWords });
  }
  if (stat.isFIFO()) return connectionOverFd(fd, name, { reads, writes: !reads, words: fileWords });
  return new FileConnection({ fd, name, start: null, reads, writes: !reads });
}
