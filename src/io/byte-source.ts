/**
 * Where bytes come from and go to: the whole contract between the formats and a platform. Files, pipes, Blobs and
 * memory implement it. An undefined `size` means that a source cannot seek.
 */

import type { AutoClosed } from '../vm/auto-closed.ts';
import { MigrationError, type Place, type PlaceOrigin } from '../vm/migration-error.ts';

/** Bytes that can be read. */
export interface ByteSource {
  /** Its name in messages. */
  readonly name: string;
  /** What its positions count. Default: bytes of the file that `name` names. */
  readonly coordinate?: PlaceOrigin['coordinate'];
  /** Total bytes. Undefined: the source can only be read forward. */
  readonly size: number | undefined;
  /**
   * Reads up to `target.length` bytes at `position` into `target`. Returns the number of bytes, 0 only at the end. A
   * source without a size accepts positions at or after the end of the last read, and skips the bytes in between.
   */
  read(target: Uint8Array, position: number): Promise<number> | number;
  /**
   * Announces that the bytes from `from` up to `to` will be read in ascending order, perhaps with gaps. Each call
   * replaces the one before; reads elsewhere may come in between. Only sources whose requests are expensive have this
   * method. Their readers read no more than they need.
   */
  willRead?(from: number, to: number): void;
  /** Releases its resources. Reading afterwards is an error. */
  close(): Promise<void>;
}

/** A source that the library opened and the caller closes. */
export interface OpenedSource extends ByteSource, AutoClosed {}

/**
 * Bytes that can be read and written at any position. Unwritten ranges read as zeros and, if possible, take no space.
 */
export interface ByteStore extends ByteSource {
  readonly size: number;
  /**
   * With direct I/O: writes whose length, position and address are multiples of this many bytes bypass the page cache.
   * Other writes use it as usual.
   */
  readonly alignment?: number;
  /** Writes all of `bytes` at `position`. */
  write(bytes: Uint8Array, position: number): Promise<void> | void;
  /** Makes a hole where `length` bytes were, to release their storage. The method is missing if that is impossible. */
  punch?(position: number, length: number): void;
  /** Sets the size; a larger one adds a hole. */
  truncate(size: number): Promise<void> | void;
  /** Waits until everything written would survive a crash. */
  sync(): Promise<void>;
}

/** Takes bytes in order. */
export interface ByteSink {
  /** Takes all of `bytes`. The caller may overwrite them once the call is done. */
  write(bytes: Uint8Array): Promise<void> | void;
}

/** @throws TypeError if an object with `read` and `close` is not a source in other respects. */
export function requireSource({ name, size }: ByteSource): void {
  const isSize = size === undefined || (Number.isSafeInteger(size) && size >= 0);
  if (typeof name === 'string' && isSize) return;
  const got = typeof name !== 'string' ? `the name ${String(name)}` : `the size ${String(size)}`;
  throw new TypeError(`expected a ByteSource with a name, and a size in bytes or undefined, got ${got}`);
}

/** @throws TypeError if `count` is not a number of bytes that a read into `target` may return. */
export function requireCount(name: string, count: unknown, target: Uint8Array): void {
  if (Number.isInteger(count) && (count as number) >= 0 && (count as number) <= target.length) return;
  throw new TypeError(`${name}: expected read to return 0 to ${target.length} bytes, got ${String(count)}`);
}

/** @throws TypeError if `output` is not a sink. Stores and streams have a different `write`, or none. */
export function requireSink(output: ByteSink): void {
  const { write, truncate, once, getWriter } = (output ?? {}) as unknown as Record<string, unknown>;
  const takesMore = typeof write === 'function' && write.length > 1;
  if (takesMore && typeof truncate === 'function') {
    throw new TypeError('expected a ByteSink, got a ByteStore: appendTo(store) turns it into one');
  }
  if (typeof getWriter === 'function' || (takesMore && typeof once === 'function')) {
    throw new TypeError('expected a ByteSink, got a stream: pipeTo(stream) turns it into one');
  }
  if (typeof write !== 'function') throw new TypeError(`expected a ByteSink, got ${typeof output} without write`);
}

/** Returns a sink that writes to a store in order, from `position` on. */
export function appendTo(store: ByteStore, position = 0): ByteSink {
  let at = position;
  return {
    write(bytes) {
      const from = at;
      at += bytes.length;
      return store.write(bytes, from);
    },
  };
}

/**
 * The method `willRead` for a source whose `size` bytes are those of `source` from `start` on. Nothing if `source` has
 * no such method.
 */
export function announcements(
  source: ByteSource,
  start = 0,
  size = Number.POSITIVE_INFINITY,
): Pick<ByteSource, 'willRead'> {
  if (source.willRead === undefined) return {};
  return { willRead: (from, to) => source.willRead?.(start + from, start + Math.min(to, size)) };
}

/** The part that all places in a source have in common. */
export function originOf({ name, coordinate = 'file' }: ByteSource): PlaceOrigin {
  return { source: name, coordinate };
}

/** A place in a source. */
export function placeIn(source: ByteSource, offset: number): Place {
  return { ...originOf(source), offset };
}

/** Fills all of `target` from `position` on. @throws MigrationError `truncated` if the source ends earlier. */
export async function readFully(source: ByteSource, target: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const count = await source.read(target.subarray(done), position + done);
    if (count === 0) {
      const message = `expected ${target.length} bytes at ${position}, got ${done}`;
      throw new MigrationError('truncated', message, placeIn(source, position + done));
    }
    done += count;
  }
}
