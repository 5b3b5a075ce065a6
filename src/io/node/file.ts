/**
 * Files by Node's fs. Reads go straight into the caller's view of WASM memory, and are synchronous if the page cache
 * has the bytes: a trip through the thread pool takes longer than most such reads. Large reads that wait for a disk
 * use the thread pool, so that they overlap with decoding. All writes are synchronous.
 */

import {
  close,
  constants,
  createReadStream,
  fstatSync,
  fsync,
  ftruncateSync,
  open,
  openSync,
  read,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import type { ByteStore, OpenedSource } from '../byte-source.ts';
import { deviceSize } from '../file-handle.ts';
import { StreamSource } from '../stream-source.ts';
import { accessing, fileError } from './file-error.ts';

const openAsync = promisify(open);
const readAsync = promisify(read);
const fsyncAsync = promisify(fsync);
const closeAsync = promisify(close);

/** Reads of more bytes than this are never synchronous. */
const maxSyncRead = 2 << 20;
/** Limits of consecutive synchronous reads, in bytes and reads. Then the event loop turns and handles signals. */
const maxSyncBytes = 16 << 20;
const maxSyncReads = 64;
/** A read of at least this many bytes is worth a trip through the thread pool if it is slow. */
const largeRead = 256 * 1024;
/** Bytes per ms of a page cache: a slower read waited for a disk. */
const cacheSpeed = 1.5e6;
/** Large reads after a slow one that are expected to be slow too. */
const readsAfterSlow = 8;

/** The kernel takes at most 2^31 - 1 bytes per write. */
const maxWrite = 1 << 30;

/** The alignment of addresses, lengths and positions that direct I/O requires; some old disks require less. */
const directAlignment = 4096;

/** An open regular file or block device. */
export class NodeFile implements ByteStore, AutoClosed {
  readonly name: string;
  readonly fd: number;
  /** Set with direct I/O, see `ByteStore`. */
  readonly alignment?: number;
  /** Large reads use the thread pool, to overlap with other work, such as the writing to sockets. */
  overlapsReads = false;
  readonly #directFd: number | undefined;
  #size: number;
  #open = true;
  /** Synchronous reads since the event loop last turned, and their bytes. */
  #syncReads = 0;
  #syncBytes = 0;
  /** Large reads that will still use the thread pool. */
  #slowReads = 0;

  /** `directFd` is open on the same file with O_DIRECT. */
  constructor(fd: number, name: string, size: number, directFd?: number) {
    this.fd = fd;
    this.name = name;
    this.#size = size;
    this.#directFd = directFd;
    if (directFd !== undefined) this.alignment = directAlignment;
  }

  get size(): number {
    return this.#size;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const { length } = target;
    const isLarge = length >= largeRead;
    if (length > maxSyncRead || (isLarge && (this.overlapsReads || this.#slowReads-- > 0)) || this.#mustTurn(length)) {
      return this.#readAsync(target, position);
    }
    const start = performance.now();
    try {
      return readSync(this.fd, target, 0, length, position);
    } catch (error) {
      throw fileError(error, { verb: 'read', path: this.name, at: position });
    } finally {
      if (isLarge) this.#slowReads = length < (performance.now() - start) * cacheSpeed ? readsAfterSlow : 0;
    }
  }

  #mustTurn(length: number): boolean {
    this.#syncReads++;
    this.#syncBytes += length;
    if (this.#syncReads < maxSyncReads && this.#syncBytes < maxSyncBytes) return false;
    this.#syncReads = 0;
    this.#syncBytes = 0;
    return true;
  }

  async #readAsync(target: Uint8Array, position: number): Promise<number> {
    try {
      return (await readAsync(this.fd, target, 0, target.length, position)).bytesRead;
    } catch (error) {
      throw fileError(error, { verb: 'read', path: this.name, at: position });
    }
  }

  write(bytes: Uint8Array, position: number): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += this.#writeSome(bytes.subarray(done, done + maxWrite), position + done);
      }
    } catch (error) {
      throw fileError(error, { verb: 'write', path: this.name, at: position });
    }
    if (bytes.length > 0) this.#size = Math.max(this.#size, position + bytes.length);
  }

  #writeSome(bytes: Uint8Array, position: number): number {
    const isAligned =
      ((bytes.byteOffset | bytes.length) & (directAlignment - 1)) === 0 && position % directAlignment === 0;
    if (this.#directFd !== undefined && isAligned) {
      try {
        return writeSync(this.#directFd, bytes, 0, bytes.length, position);
      } catch (error) {
        // Memory outside WebAssembly may start at any address, and some disks need a larger alignment.
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      }
    }
    return writeSync(this.fd, bytes, 0, bytes.length, position);
  }

  truncate(size: number): void {
    accessing({ verb: 'write', path: this.name, at: size }, () => ftruncateSync(this.fd, size));
    this.#size = size;
  }

  async sync(): Promise<void> {
    try {
      await fsyncAsync(this.fd);
    } catch (error) {
      throw fileError(error, { verb: 'write', path: this.name });
    }
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    if (this.#directFd !== undefined) await closeAsync(this.#directFd);
    await closeAsync(this.fd);
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Opens a file again, for direct I/O; undefined if the platform or the file system does not support it. */
export function openDirect(path: string): number | undefined {
  if (constants.O_DIRECT === undefined) return undefined;
  try {
    return openSync(path, constants.O_WRONLY | constants.O_DIRECT);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
}

/**
 * Opens a path, or standard input for `-`, for reading: files and block devices with random access, pipes, FIFOs and
 * terminals as forward-only streams. Opening a FIFO does not wait for its writer: the first read does, and that can be
 * interrupted.
 */
export async function openSource(path: string): Promise<OpenedSource> {
  if (path === '-') return sourceOf(0, 'standard input');
  const isFifo = accessing({ verb: 'read', path }, () => statSync(path).isFIFO());
  const fd = await openAsync(path, constants.O_RDONLY | (isFifo ? constants.O_NONBLOCK : 0)).catch((error) => {
    throw fileError(error, { verb: 'read', path });
  });
  try {
    return await sourceOf(fd, path);
  } catch (error) {
    await closeAsync(fd);
    throw error;
  }
}

async function sourceOf(fd: number, name: string): Promise<OpenedSource> {
  const stat = fstatSync(fd);
  const hasByteAt = async (at: number) => (await readAsync(fd, new Uint8Array(1), 0, 1, at)).bytesRead === 1;
  if (stat.isFile()) return new NodeFile(fd, name, stat.size);
  if (stat.isBlockDevice()) return new NodeFile(fd, name, await deviceSize(hasByteAt));
  if (stat.isDirectory()) throw Object.assign(new Error(`cannot read ${name}: it is a directory`), { code: 'EISDIR' });
  const stream = isatty(fd)
    ? new ReadStream(fd)
    : stat.isFIFO() || stat.isSocket()
      ? new Socket({ fd, readable: true, writable: false })
      : createReadStream('', { fd, highWaterMark: 1 << 20 });
  return new StreamSource(stream, name, () => void stream.destroy());
}
