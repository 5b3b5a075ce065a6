/** A migration into or out of a file: a connection that is read or written in order, from an offset on. */
import { close as closeFd, constants, fstatSync, ftruncateSync, openSync, read, type Stats, write } from 'node:fs';
import { promisify } from 'node:util';
import { type Connection, PeerError } from '../connection.ts';
import type { FileAddress } from '../migration-address.ts';
import { requireNoGuest } from './file-lock.ts';
import { connectionOverFd, fileWords } from './socket-connection.ts';
import { localError } from './system-text.ts';

const readAsync = promisify(read);
const writeAsync = promisify(write);
const closeAsync = promisify(closeFd);

/** What an open file may do. */
interface FileUse {
  fd: number;
  name: string;
  /** Where to begin. Null: where the descriptor stands, because it has no positions or belongs to others, too. */
  start: number | null;
  reads: boolean;
  writes: boolean;
}

/** A connection over an open file. Its errors are those of this host, and are not of the class PeerError. */
export class FileConnection implements Connection {
  readonly name: string;
  readonly size = undefined;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  readonly method = 'file';
  readonly #fd: number;
  readonly #start: number | null;
  #position = 0;
  #written = 0;
  #isBroken = false;
  /** The system calls under way, after which the descriptor can be closed. */
  #busy = 0;
  #isOpen = true;
  #noteIdle: (() => void) | undefined;

  constructor({ fd, name, start, reads, writes }: FileUse) {
    this.name = name;
    this.#fd = fd;
    this.#start = start;
    this.canRead = reads;
    this.canWrite = writes;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (position < this.#position) {
      throw new RangeError(`${this.name}: expected a position from ${this.#position} on, got ${position}`);
    }
    while (this.#position < position) {
      if ((await this.#readSome(target.subarray(0, position - this.#position))) === 0) return 0;
    }
    return this.#readSome(target);
  }

  async #readSome(target: Uint8Array): Promise<number> {
    const at = this.#start === null ? null : this.#start + this.#position;
    const call = () => readAsync(this.#fd, target, 0, target.length, at).then(({ bytesRead }) => bytesRead);
    const count = await this.#use(fileWords.read, call);
    this.#position += count;
    return count;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const at = this.#start === null ? null : this.#start + this.#written;
      const from = done;
      const call = () =>
        writeAsync(this.#fd, bytes, from, bytes.length - from, at).then(({ bytesWritten }) => bytesWritten);
      const count = await this.#use(fileWords.write, call);
      done += count;
      this.#written += count;
    }
  }

  async #use(words: string, call: () => Promise<number>): Promise<number> {
    this.#requireOpen();
    this.#busy++;
    try {
      const count = await call();
      this.#requireOpen();
      return count;
    } catch (error) {
      if (error instanceof PeerError) throw error;
      throw localError(words, error);
    } finally {
      this.#busy--;
      if (this.#busy === 0) this.#noteIdle?.();
    }
  }

  #requireOpen(): void {
    if (this.#isBroken) throw new PeerError('the connection was closed on this side', { code: 'ECONNABORTED' });
  }

  async end(): Promise<void> {}

  destroy(): void {
    void this.close();
  }

  async close(): Promise<void> {
    this.#isBroken = true;
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#busy > 0) await new Promise<void>((resolve) => (this.#noteIdle = resolve));
    await closeAsync(this.#fd).catch(() => {});
  }
}

/**
 * Opens a file for writing, cut off at its offset. A FIFO must have a reader.
 * @throws Error with QEMU's text and the system's `code`
 */
export function createAt({ filename, offset, fd: open }: FileAddress, name: string): Connection {
  const fd = open ?? opened(`Could not create '${filename}'`, filename, constants.O_WRONLY | constants.O_CREAT);
  const stat = fstatSync(fd);
  if (stat.isFIFO())
    return connectionOverFd(fd, name, { reads: false, writes: true, words: fileWords, method: 'direct' });
  try {
    if (stat.isFile() && open === undefined) requireNoGuest(filename);
    if (stat.isFile()) ftruncateSync(fd, offset);
  } catch (error) {
    closeFd(fd);
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') throw error;
    throw localError(`failed to truncate migration file to offset ${offset.toString(16)}`, error);
  }
  return new FileConnection({ fd, name, start: startOf(stat, offset, open), reads: false, writes: true });
}

/**
 * Opens a file for reading. The first read of a FIFO waits for its writer.
 * @throws Error with QEMU's text and the system's `code`
 */
export function openAt({ filename, offset, fd: open }: FileAddress, name: string): Connection {
  const words = `Could not open '${filename}'`;
  const fd = open ?? opened(words, filename, constants.O_RDONLY);
  const stat = fstatSync(fd);
  if (stat.isFIFO())
    return connectionOverFd(fd, name, { reads: true, writes: false, words: fileWords, method: 'direct' });
  if (stat.isDirectory()) {
    closeFd(fd);
    throw localError(words, { code: 'EISDIR' });
  }
  return new FileConnection({ fd, name, start: startOf(stat, offset, open), reads: true, writes: false });
}

/** As in QEMU, a descriptor that a client has passed is used from where it stands, unless there is an offset. */
function startOf(stat: Stats, offset: number, open: number | undefined): number | null {
  return stat.isFile() && (open === undefined || offset > 0) ? offset : null;
}

/** Opens a path at once: that of a FIFO would otherwise wait for the other side. */
function opened(words: string, path: string, flags: number): number {
  try {
    return openSync(path, flags | constants.O_NONBLOCK, 0o600);
  } catch (error) {
    throw localError(words, error);
  }
}
