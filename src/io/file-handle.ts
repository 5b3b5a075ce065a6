/** A FileHandle of node:fs/promises as a source. Files and block devices have random access, pipes are read forward. */
import { asyncDispose } from '../vm/auto-closed.ts';
import type { OpenedSource } from './byte-source.ts';
import type { FileHandleInput } from './platform.ts';
import { StreamSource } from './stream-source.ts';

/** Opens a handle; on failure it is closed. @throws TypeError for a closed handle, Error `EISDIR` for a directory */
export async function openHandle(handle: FileHandleInput): Promise<OpenedSource> {
  if (handle.fd < 0) throw new TypeError('expected an open FileHandle, got one that was closed');
  try {
    return await sourceOf(handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function sourceOf(handle: FileHandleInput): Promise<OpenedSource> {
  const name = `file handle ${handle.fd}`;
  const stat = await handle.stat();
  if (stat.isDirectory()) throw Object.assign(new Error(`${name} is a directory`), { code: 'EISDIR' });
  if (stat.isFile()) return new HandleSource(handle, name, stat.size);
  if (stat.isBlockDevice()) return new HandleSource(handle, name, await deviceSize((at) => hasByte(handle, at)));
  const stream = handle.createReadStream();
  stream.on('error', () => {});
  return new StreamSource(stream, name, () => void stream.destroy());
}

class HandleSource implements OpenedSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandleInput;
  #closing: Promise<void> | undefined;

  constructor(handle: FileHandleInput, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.size = size;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (this.#handle.fd < 0) throw new TypeError(`${this.name} was closed while it was read`);
    const { bytesRead } = await this.#handle.read(target, 0, target.length, position);
    return bytesRead;
  }

  close(): Promise<void> {
    this.#closing ??= this.#handle.close();
    return this.#closing;
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function hasByte(handle: FileHandleInput, at: number): Promise<boolean> {
  return (await handle.read(new Uint8Array(1), 0, 1, at)).bytesRead === 1;
}

/** The size of a block device: stat says 0, so search for the last readable byte. */
export async function deviceSize(hasByteAt: (at: number) => Promise<boolean>): Promise<number> {
  let beyond = 1;
  while (await hasByteAt(beyond)) beyond *= 2;
  let low = Math.floor(beyond / 2);
  while (low + 1 < beyond) {
    const middle = Math.floor((low + beyond) / 2);
    if (await hasByteAt(middle)) low = middle;
    else beyond = middle;
  }
  return beyond;
}
