/**
 * Output that appears whole or not at all: written beside its final name, synced, then renamed. What is unfinished
 * when the process is interrupted is removed (see {@link removeUnfinished}).
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
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
import { NodeFile, openDirect } from './file.ts';

/** Paths and directories that are not finished yet. */
const unfinished = new Set<string>();
const unfinishedDirectories = new Set<string>();

/** Removes everything unfinished; for signal handlers, and for whatever else ends the process. */
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
    // Already gone, or not empty: nothing that is ours is left.
  }
}

/** A short name: that of the target may be as long as names can be. */
const temporaryName = () => `.vmferry-${process.pid}-${randomBytes(4).toString('hex')}`;

export interface OutputFileOptions {
  /** Write whole pages past the page cache, where that can be done: `file.alignment` says whether it can. Default false. */
  directIo?: boolean;
}

/** A file in the making. */
export class OutputFile {
  readonly path: string;
  readonly file: NodeFile;
  readonly #target: string;
  readonly #temporary: string;

  constructor(path: string, { directIo = false }: OutputFileOptions = {}) {
    this.path = path;
    // Through a link the file it leads to is replaced, not the link.
    this.#target = existsSync(path) ? realpathSync(path) : path;
    this.#temporary = join(dirname(this.#target), temporaryName());
    unfinished.add(this.#temporary);
    try {
      requireDirectory(path, dirname(this.#target));
      const fd = openSync(this.#temporary, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
      this.file = new NodeFile(fd, path, 0, directIo ? openDirect(this.#temporary) : undefined);
    } catch (error) {
      unfinished.delete(this.#temporary);
      throw error;
    }
  }

  /** Makes everything durable, then visible under the final name. */
  async commit(): Promise<void> {
    await this.seal();
    this.reveal();
    syncDirectory(this.directory);
  }

  /** The directory of the final name. */
  get directory(): string {
    return dirname(this.#target);
  }

  /** Makes everything durable that was written. Nothing can be written any more. */
  async seal(): Promise<void> {
    await this.file.sync();
    await this.file.close();
  }

  /** Makes what is sealed visible under the final name; that is durable when the directory is. */
  reveal(): void {
    renameSync(this.#temporary, this.#target);
    unfinished.delete(this.#temporary);
  }

  /** Removes the file that has the final name now, if there is one. */
  removeOld(): void {
    rmSync(this.#target, { force: true });
  }

  /** Removes what there is. */
  async abandon(): Promise<void> {
    await this.file.close();
    if (!unfinished.delete(this.#temporary)) return;
    ignoreMissing(() => unlinkSync(this.#temporary));
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

/** What is written has to have a name, and a directory for it. @throws Error with the `code` of the system */
function requireDirectory(path: string, directory: string): void {
  if (path === '')
    throw Object.assign(new Error('expected the name of a file to write, got an empty one'), { code: 'ENOENT' });
  if (statSync(directory, { throwIfNoEntry: false }) !== undefined) return;
  throw Object.assign(new Error(`ENOENT: there is no directory ${directory} to write ${path} to`), { code: 'ENOENT' });
}

/** A scratch file without a name: gone when closed, whatever happens. */
export function openScratch(directory: string): NodeFile {
  const path = join(directory, temporaryName());
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  unlinkSync(path);
  return new NodeFile(fd, `scratch file in ${directory}`, 0);
}

/** Whether a path can be replaced by renaming: it is absent or a regular file. */
export function isReplaceable(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined || stat.isFile();
}
