/** A qcow2 overlay for each disk that a clone may write, so that clones share a disk and each writes its own. */
import { closeSync, constants, mkdtempSync, openSync, readSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { NodeFile } from '../../io/node/file.ts';
import { accessing } from '../../io/node/file-error.ts';
import { watchDirectory, watchFile } from '../../io/node/output-file.ts';
import { decodeQcow2Header, qcow2HeaderLength, qcow2Magic } from '../../read/container/qcow2-header.ts';
import { type Backing, writeOverlay } from '../../write/qcow2/overlay.ts';
import { UsageError } from '../exit-codes.ts';
import { overlayName, writableDisks } from './disks.ts';
import { parseOptions } from './qemu-arguments.ts';

/** Overlays that are removed at the end, unless they have a directory that the user named. */
export class Overlays {
  readonly #directory: string;
  readonly #isKept: boolean;
  readonly #watches: { forget(): void }[] = [];
  readonly #paths: string[] = [];

  /** `directory`: where they are kept. Undefined: in a temporary directory, until {@link remove}. */
  constructor(directory: string | undefined) {
    this.#isKept = directory !== undefined;
    if (directory === undefined) {
      this.#directory = mkdtempSync(join(tmpdir(), 'vmferry-clones-'));
      watchDirectory(this.#directory);
    } else {
      this.#directory = resolve(directory);
      if (statSync(this.#directory, { throwIfNoEntry: false })?.isDirectory() !== true)
        throw new UsageError(`expected a directory for the overlays, got ${directory}`);
    }
  }

  /**
   * Makes the overlays of a clone, and returns its arguments with them.
   * @throws UsageError for a disk that cannot have one
   */
  async replace(args: readonly string[], clone: number): Promise<string[]> {
    const replaced = [...args];
    for (const [index, disk] of writableDisks(parseOptions(args)).entries()) {
      const backing = backingOf(disk.path, disk.format);
      if (disk.replaced === undefined || backing === undefined) {
        throw new UsageError(`cannot make an overlay of ${disk.path}: expected a raw or qcow2 image in a file`);
      }
      const path = join(this.#directory, overlayName(disk.path, index, clone));
      const fd = accessing({ verb: 'create', path }, () =>
        openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600),
      );
      this.#paths.push(path);
      if (!this.#isKept) this.#watches.push(watchFile(path));
      try {
        await writeOverlay(new NodeFile(fd, path, 0), backing);
      } finally {
        closeSync(fd);
      }
      const { option } = disk;
      replaced[option.index + option.words - 1] = disk.replaced(path);
    }
    return replaced;
  }

  /** Removes what is not to be kept. */
  remove(): void {
    if (this.#isKept) return;
    for (const watch of this.#watches) watch.forget();
    for (const path of this.#paths) rmSync(path, { force: true });
    rmdirSync(this.#directory);
  }
}

/** What an overlay says about the image under it. Undefined: it is not in a file, or of a format without overlays here. */
function backingOf(path: string, format: string | undefined): Backing | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new UsageError(`cannot make an overlay of ${path}: no such file`);
  if (!stat.isFile()) return undefined;
  const head = new Uint8Array(qcow2HeaderLength);
  const fd = accessing({ verb: 'read', path }, () => openSync(path, 'r'));
  try {
    const count = readSync(fd, head, 0, head.length, 0);
    const isQcow2 = count >= 4 && new DataView(head.buffer).getUint32(0) === qcow2Magic;
    const is = format ?? (isQcow2 ? 'qcow2' : 'raw');
    if (is === 'raw') return { path: resolve(path), format: 'raw', diskSize: stat.size };
    if (is !== 'qcow2') return undefined;
    const { diskSize } = decodeQcow2Header(head.subarray(0, count), { source: path, coordinate: 'file', offset: 0 });
    return { path: resolve(path), format: 'qcow2', diskSize };
  } finally {
    closeSync(fd);
  }
}
