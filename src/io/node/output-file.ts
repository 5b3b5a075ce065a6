/**
 * Output that appears whole or not at all: written beside its final name, synced, then renamed. An interruption of the
 * process removes unfinished output (see {@link removeUnfinished}).
 */

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import { NodeFile, openDirect } from './file.ts';
import { accessing, fileError } from './file-error.ts';
import { requireNoGuest } from './file-lock.ts';

/** Unfinished paths and directories. */
const unfinished = new Set<string>();
const unfinishedDirectories = new Set<string>();

/** Removes everything unfinished; for signal handlers and every other way that the process ends. */
export function removeUnfinished(): void {
  for (const path of unfinished) ignoreMissing(() => unlinkSync(path));
  for (const path of unfinishedDirectories) ignoreMissing(() => rmdirSync(path));
  unfinished.clear();
  unfinishedDirectories.clear();
}

function ignoreMissing(action: () => void): void {
  try {
    action();
  } catch {
    // It is already gone, or the directory holds files of others.
  }
}

/** A short name, since the target's name may already have the maximum length. */
const temporaryName = () => `.vmferry-${process.pid}-${randomBytes(4).toString('hex')}`;

/** How an {@link OutputFile} is written. */
export interface OutputFileOptions {
  /** Write whole pages past the page cache if possible: `file.alignment` says whether it is. Default false. */
  directIo?: boolean;
  /** Go on with this file, which was kept: it is not removed if the output is abandoned. Default: a new one is made. */
  from?: string;
}

/** A file that is being written. */
export class OutputFile implements AutoClosed {
  readonly path: string;
  readonly file: NodeFile;
  readonly #target: string;
  #temporary: string;

  constructor(path: string, { directIo = false, from }: OutputFileOptions = {}) {
    this.path = path;
    // A link stays; the file it points to is replaced.
    this.#target = existsSync(path) ? realpathSync(path) : path;
    if (from !== undefined) {
      this.#temporary = from;
      const fd = accessing({ verb: 'write', path: from }, () => openSync(from, constants.O_RDWR));
      this.file = new NodeFile(fd, from, fstatSync(fd).size);
      return;
    }
    this.#temporary = join(dirname(this.#target), temporaryName());
    unfinished.add(this.#temporary);
    try {
      requireDirectory(path, dirname(this.#target));
      if (statSync(this.#target, { throwIfNoEntry: false })?.isFile() === true) requireNoGuest(this.#target);
      const fd = openSync(this.#temporary, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
      this.file = new NodeFile(fd, path, 0, directIo ? openDirect(this.#temporary) : undefined);
    } catch (error) {
      unfinished.delete(this.#temporary);
      throw fileError(error, { verb: 'write', path });
    }
  }

  /** Makes everything durable, then visible under the final name. */
  async commit(): Promise<void> {
    await this.seal();
    this.reveal();
    syncDirectory(this.directory);
  }

  /** Makes everything durable under another name, beside the final one. It stays there if the output is abandoned. */
  async keepAs(path: string): Promise<void> {
    await this.file.sync();
    if (this.#temporary !== path) {
      accessing({ verb: 'write', path }, () => renameSync(this.#temporary, path));
      unfinished.delete(this.#temporary);
      this.#temporary = path;
    }
    syncDirectory(dirname(path));
  }

  /** Removes the file that was kept, because its content is elsewhere. */
  async removeKept(): Promise<void> {
    await this.file.close();
    rmSync(this.#temporary, { force: true });
    unfinished.delete(this.#temporary);
  }

  /** Where the file is until it has its final name. */
  get unfinishedPath(): string {
    return this.#temporary;
  }

  /** The directory of the final name. */
  get directory(): string {
    return dirname(this.#target);
  }

  /** Makes everything written durable. No more writes are possible. */
  async seal(): Promise<void> {
    await this.file.sync();
    await this.file.close();
  }

  /** Makes the sealed file visible under the final name. The name is durable once the directory is synced. */
  reveal(): void {
    accessing({ verb: 'write', path: this.path }, () => renameSync(this.#temporary, this.#target));
    unfinished.delete(this.#temporary);
  }

  /** Removes the file that now has the final name, if any. */
  removeOld(): void {
    rmSync(this.#target, { force: true });
  }

  /** Closes and removes the unfinished file. */
  async abandon(): Promise<void> {
    await this.file.close();
    if (!unfinished.delete(this.#temporary)) return;
    ignoreMissing(() => unlinkSync(this.#temporary));
  }

  /** Abandons the file unless it was committed. */
  [asyncDispose](): Promise<void> {
    return this.abandon();
  }
}

/** Makes new names in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Remembers a directory made for output, so that an interruption removes it if it is empty. */
export function watchDirectory(path: string): { keep(): void } {
  unfinishedDirectories.add(path);
  return { keep: () => void unfinishedDirectories.delete(path) };
}

/** Remembers a file that must not outlive the process, such as that of a unix socket. `forget` it once it is removed. */
export function watchFile(path: string): { forget(): void } {
  unfinished.add(path);
  return { forget: () => void unfinished.delete(path) };
}

/** Requires a name, and an existing directory for it. @throws Error with the system's `code` */
function requireDirectory(path: string, directory: string): void {
  if (path === '')
    throw Object.assign(new Error('expected the name of a file to write, got an empty string'), { code: 'ENOENT' });
  if (statSync(directory, { throwIfNoEntry: false }) !== undefined) return;
  const message = `cannot write ${path}: the directory ${directory} does not exist`;
  throw Object.assign(new Error(message), { code: 'ENOENT' });
}

/** A scratch file without a name: it disappears when closed, even by a crash. */
export function openScratch(directory: string): NodeFile {
  const path = join(directory, temporaryName());
  const name = `a scratch file in ${directory}`;
  const fd = accessing({ verb: 'create', path: name }, () => {
    requireDirectory(name, directory);
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  });
  unlinkSync(path);
  return new NodeFile(fd, name, 0);
}

/** Whether a path can be replaced by renaming: it is absent or a regular file. */
export function isReplaceable(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined || stat.isFile();
}
