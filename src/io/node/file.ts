/**
 * Files of Node's fs. Large reads go through the thread pool, straight into the caller's view of WASM memory, so that
 * they overlap with decoding. Small reads and all writes are synchronous: they come one per run of pages, and a trip
 * through the thread pool takes longer than most of them.
 */
import {
  close,
  constants,
  createReadStream,
  fstatSync,
  fsync,
  ftruncateSync,
  open,
  read,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import type { ByteSource, ByteStore } from '../byte-source.ts';
import { StreamSource } from '../stream-source.ts';

const openAsync = promisify(open);
const readAsync = promisify(read);
const fsyncAsync = promisify(fsync);
const closeAsync = promisify(close);

/** Reads up to this many bytes are synchronous, */
const maxSyncRead = 256 * 1024;
/** but for one in so many, so that the event loop turns and signals are heard. */
const asyncShare = 64;

/** The kernel takes at most 2^31 - 1 bytes per write. */
const maxWrite = 1 << 30;

/** An open regular file or block device. */
export class NodeFile implements ByteStore {
  readonly name: string;
  readonly fd: number;
  #size: number;
  #open = true;
  #smallReads = 0;

  constructor(fd: number, name: string, size: number) {
    this.fd = fd;
    this.name = name;
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    if (target.length <= maxSyncRead && ++this.#smallReads % asyncShare !== 0) {
      try {
        return readSync(this.fd, target, 0, target.length, position);
      } catch (error) {
        throw this.#explain(error, position);
      }
    }
    return this.#readAsync(target, position);
  }

  async #readAsync(target: Uint8Array, position: number): Promise<number> {
    try {
      return (await readAsync(this.fd, target, 0, target.length, position)).bytesRead;
    } catch (error) {
      throw this.#explain(error, position);
    }
  }

  /** Says of an error of the system which file it was, and where; the `code` stays. */
  #explain(error: unknown, position: number): unknown {
    if (error instanceof Error) error.message += ` (${this.name} at 0x${position.toString(16)})`;
    return error;
  }

  write(bytes: Uint8Array, position: number): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.fd, bytes, done, Math.min(maxWrite, bytes.length - done), position + done);
      }
    } catch (error) {
      throw this.#explain(error, position);
    }
    if (bytes.length > 0) this.#size = Math.max(this.#size, position + bytes.length);
  }

  truncate(size: number): void {
    ftruncateSync(this.fd, size);
    this.#size = size;
  }

  sync(): Promise<void> {
    return fsyncAsync(this.fd);
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await closeAsync(this.fd);
  }
}

/**
 * Opens a path, or standard input for `-`, for reading: files and block devices with random access, pipes, FIFOs and
 * terminals as forward-only streams. A FIFO is opened without waiting for its writer: its first read does that, and can
 * be interrupted.
 */
export async function openSource(path: string): Promise<ByteSource> {
  if (path === '-') return sourceOf(0, 'standard input');
  const isFifo = statSync(path).isFIFO();
  const fd = await openAsync(path, constants.O_RDONLY | (isFifo ? constants.O_NONBLOCK : 0));
  try {
    return await sourceOf(fd, path);
  } catch (error) {
    await closeAsync(fd);
    throw error;
  }
}

async function sourceOf(fd: number, name: string): Promise<ByteSource> {
  const stat = fstatSync(fd);
  if (stat.isFile()) return new NodeFile(fd, name, stat.size);
  if (stat.isBlockDevice()) return new NodeFile(fd, name, await deviceSize(fd));
  if (stat.isDirectory()) throw Object.assign(new Error(`${name} is a directory`), { code: 'EISDIR' });
  const stream = isatty(fd)
    ? new ReadStream(fd)
    : stat.isFIFO() || stat.isSocket()
      ? new Socket({ fd, readable: true, writable: false })
      : createReadStream('', { fd, highWaterMark: 1 << 20 });
  return new StreamSource(stream, name, () => void stream.destroy());
}

/** The size of a block device: stat says 0, so search for the last readable byte. */
async function deviceSize(fd: number): Promise<number> {
  const byte = new Uint8Array(1);
  const readable = async (at: number) => (await readAsync(fd, byte, 0, 1, at)).bytesRead === 1;
  let beyond = 1;
  while (await readable(beyond)) beyond *= 2;
  let low = Math.floor(beyond / 2);
  while (low + 1 < beyond) {
    const middle = Math.floor((low + beyond) / 2);
    if (await readable(middle)) low = middle;
    else beyond = middle;
  }
  return beyond;
}
