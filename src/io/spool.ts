/**
 * Copies what cannot seek to a scratch file, for formats that need random access. The copy is removed when the source is
 * closed. In Node the scratch file never has a name once it is open, so a crash removes it, too.
 */
import { type Abortable, orAborted } from './abort.ts';
import type { ByteSource, ByteStore } from './byte-source.ts';
import { openOpfsScratch } from './opfs-scratch.ts';
import type { Platform } from './platform.ts';
import { MemoryScratch, NoRoomError, type ScratchPlace } from './scratch.ts';

/** How inputs without random access are copied. */
export interface SpoolOptions {
  /**
   * When an input that can only be read forward is copied to a scratch file. `needed`: if it is a qcow2 image or a zip
   * archive, which need random access. `always`: at once, so that it can be read any number of times. `never`: such
   * images and archives are refused. Default `needed`.
   */
  spool?: 'needed' | 'always' | 'never';
  /** The most bytes that are copied. Default: 64 GiB. A browser that has no private file system keeps at most 256 MiB. */
  spoolLimit?: number;
  /**
   * Makes the scratch file. Closing the source closes it. Default: in Node a file without a name in the system's
   * temporary directory; in a browser a file in the origin's private file system, or memory.
   */
  makeSpool?: () => ByteStore | Promise<ByteStore>;
}

const defaultLimit = 64 * 2 ** 30;
const memoryLimit = 256 << 20;
const pieceBytes = 1 << 20;

/**
 * Copies a source from `start` to its end, and closes it. The result has the same positions.
 * @throws NoRoomError if it is longer than the limit
 */
export async function spoolSource(
  source: ByteSource,
  start: number,
  { spoolLimit = defaultLimit, makeSpool = makeDefault, signal }: SpoolOptions & Abortable,
): Promise<ByteSource> {
  const scratch = await makeSpool();
  try {
    const piece = new Uint8Array(pieceBytes);
    for (let position = start; ; ) {
      signal?.throwIfAborted();
      const count = await orAborted(Promise.resolve(source.read(piece, position)), signal);
      if (count === 0) break;
      if (position - start + count > spoolLimit) throw tooLong(source.name, spoolLimit);
      await scratch.write(piece.subarray(0, count), position);
      position += count;
    }
    await source.close();
  } catch (error) {
    await scratch.close();
    throw error;
  }
  return {
    name: source.name,
    ...(source.coordinate === undefined ? {} : { coordinate: source.coordinate }),
    size: scratch.size,
    read: (target, position) => scratch.read(target, position),
    close: () => scratch.close(),
  };
}

function tooLong(name: string, limit: number): NoRoomError {
  return new NoRoomError(
    `${name} cannot seek, and has more than the ${limit} bytes that may be copied to a scratch file (spoolLimit): store it in a file first`,
  );
}

/** The scratch place of this page or worker, for all copies. */
let place: Promise<ScratchPlace> | undefined;

async function makeDefault(): Promise<ByteStore> {
  const { navigator = {} } = globalThis as { navigator?: Platform };
  place ??= openOpfsScratch(navigator, crypto.randomUUID()).then((opfs) => opfs ?? new MemoryScratch(memoryLimit));
  return (await place).makeFile();
}
