/**
 * Scratch files in a browser's origin private file system, for use in a worker. Each session has a folder, and holds a
 * lock of the same name as long as it lives. A folder without a lock belongs to a session that crashed; the next
 * session removes it. Unwritten ranges are holes that read as zeros.
 */
import { type AutoClosed, asyncDispose } from '../vm/auto-closed.ts';
import type { ByteStore } from './byte-source.ts';
import { EventLoopYield } from './event-loop-yield.ts';
import type { DirectoryHandleLike, FileHandleLike, LocksLike, Platform, PlatformFile } from './platform.ts';
import { NoRoomError, type ScratchFile, type ScratchPlace } from './scratch.ts';

/** The folder that contains the folders of all sessions. */
const root = 'vmferry-scratch';

/** The synchronous file access of workers, which the DOM's types leave out. */
interface SyncAccessHandle {
  read(target: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}
type WorkerFileHandle = FileHandleLike & { createSyncAccessHandle(): Promise<SyncAccessHandle> };

/**
 * Opens a folder for the scratch files of the session `name`. Returns undefined if the browser has no such file system:
 * on pages from insecure origins, and in some private windows.
 */
export async function openOpfsScratch({ storage, locks }: Platform, name: string): Promise<OpfsScratch | undefined> {
  if (storage?.getDirectory === undefined || locks === undefined) return undefined;
  try {
    const folders = await (await storage.getDirectory()).getDirectoryHandle(root, { create: true });
    await holdLock(locks, name);
    await removeLeftovers(folders, locks);
    const folder = await folders.getDirectoryHandle(name, { create: true });
    const scratch = new OpfsScratch(folder, async () => folders.removeEntry(name, { recursive: true }));
    // Some browsers have folders, but no writable files.
    await (await scratch.makeFile()).close();
    return scratch;
  } catch {
    return undefined;
  }
}

const lockOf = (name: string) => `${root}/${name}`;

/** Holds a lock until the worker ends. */
function holdLock(locks: LocksLike, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    locks
      .request(lockOf(name), () => {
        resolve();
        return new Promise(() => {});
      })
      .catch(reject);
  });
}

async function removeLeftovers(folders: DirectoryHandleLike, locks: LocksLike): Promise<void> {
  const names: string[] = [];
  for await (const name of (folders as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name);
  for (const name of names) {
    await locks.request(lockOf(name), { ifAvailable: true }, async (lock) => {
      // A session that holds its lock is alive. If two sessions clean up at once, one of them may find the folder
      // already gone.
      if (lock !== null) await folders.removeEntry(name, { recursive: true }).catch(() => {});
    });
  }
}

/** Scratch files in a folder of the browser's origin private file system. */
export class OpfsScratch implements ScratchPlace, AutoClosed {
  readonly kind = 'disk';
  readonly #folder: DirectoryHandleLike;
  readonly #remove: () => Promise<void>;
  #made = 0;
  #removing: Promise<void> | undefined;

  constructor(folder: DirectoryHandleLike, remove: () => Promise<void>) {
    this.#folder = folder;
    this.#remove = remove;
  }

  async makeFile(): Promise<ScratchFile> {
    const name = String(this.#made++);
    const handle = (await this.#folder.getFileHandle(name, { create: true })) as WorkerFileHandle;
    return new OpfsFile(handle, await handle.createSyncAccessHandle(), () => this.#folder.removeEntry(name));
  }

  /** Removes the folder. Its files must be closed. */
  close(): Promise<void> {
    this.#removing ??= this.#remove();
    return this.#removing;
  }

  /** Removes the folder at the end of the scope of `await using`. */
  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

class OpfsFile implements ScratchFile, ByteStore {
  readonly name = 'scratch';
  readonly #handle: FileHandleLike;
  readonly #remove: () => Promise<void>;
  readonly #turns = new EventLoopYield();
  #access: SyncAccessHandle | undefined;
  #removing: Promise<void> | undefined;

  constructor(handle: FileHandleLike, access: SyncAccessHandle, remove: () => Promise<void>) {
    this.#handle = handle;
    this.#access = access;
    this.#remove = remove;
  }

  get #open(): SyncAccessHandle {
    if (this.#access === undefined) throw new Error('the scratch file was closed');
    return this.#access;
  }

  get size(): number {
    return this.#open.getSize();
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    const count = this.#open.read(target, { at: position });
    return this.#turns.after(count)?.then(() => count) ?? count;
  }

  /** @throws NoRoomError */
  write(bytes: Uint8Array, position: number): void {
    const access = this.#open;
    const count = ask(() => access.write(bytes, { at: position }));
    if (count < bytes.length) throw noRoom();
  }

  /** @throws NoRoomError */
  truncate(size: number): void {
    const access = this.#open;
    ask(() => access.truncate(size));
  }

  async sync(): Promise<void> {
    this.#open.flush();
  }

  async finish(name: string): Promise<PlatformFile> {
    this.#end();
    return new File([await this.#handle.getFile()], name);
  }

  close(): Promise<void> {
    this.#removing ??= this.#closeOnce();
    return this.#removing;
  }

  /** Closes the file at the end of the scope of `await using`. */
  [asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeOnce(): Promise<void> {
    this.#end();
    await this.#remove();
  }

  #end(): void {
    this.#access?.close();
    this.#access = undefined;
  }
}

const noRoom = (cause?: unknown) =>
  new NoRoomError('the browser gives this page no more room for scratch files', { cause });

/** Calls `use`. The browser limits a page's storage. */
function ask<Result>(use: () => Result): Result {
  try {
    return use();
  } catch (error) {
    if ((error as { name?: string }).name === 'QuotaExceededError') throw noRoom(error);
    throw error;
  }
}
