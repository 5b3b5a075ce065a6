/**
 * Where bytes come from and go to: the whole contract between the formats and a platform. A file, a pipe, a Blob and
 * memory are members; what a member cannot do (seek, know its size) it says by `size` being undefined.
 */

import type { AutoClosed } from '../vm/auto-closed.ts';
import { MigrationError, type Place, type PlaceOrigin } from '../vm/migration-error.ts';

/** Bytes that can be read. */
export interface ByteSource {
  /** What to call it in messages. */
  readonly name: string;
  /** What its positions count; not given: bytes of the file that `name` names. */
  readonly coordinate?: PlaceOrigin['coordinate'];
  /** Total bytes; undefined for a source that can only be read forward. */
  readonly size: number | undefined;
  /**
   * Reads up to `target.length` bytes at `position` into `target`. Returns how many; 0 only at the end.
   * A source without a size takes positions at or after the end of the last read, and passes over what is between.
   */
  read(target: Uint8Array, position: number): Promise<number> | number;
  /** Releases what the source holds. Reading it afterwards is an error. */
  close(): Promise<void>;
}

/** A source that was opened here, for its caller to close. */
export interface OpenedSource extends ByteSource, AutoClosed {}

/** Bytes that can be read and written anywhere; unwritten ranges read as zeros and, where possible, take no space. */
export interface ByteStore extends ByteSource {
  readonly size: number;
  /**
   * With direct I/O: writes whose length, position and address are multiples of this many bytes bypass the page cache. Others use it
   * as usual.
   */
  readonly alignment?: number;
  /** Writes all of `bytes` at `position`. */
  write(bytes: Uint8Array, position: number): Promise<void> | void;
  /** Sets the size; a larger one adds a hole. */
  truncate(size: number): Promise<void> | void;
  /** Waits until everything written would survive a crash. */
  sync(): Promise<void>;
}

/** Where bytes go in order. */
export interface ByteSink {
  /** Takes all of `bytes`, which may be overwritten when this is done. */
  write(bytes: Uint8Array): Promise<void> | void;
}

/** @throws TypeError if `output` is not a sink: stores and streams have a different `write`, or none. */
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

/** Writes in order to a store, from `position` on. */
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

/** The first half of all places in a source. */
export function originOf({ name, coordinate = 'file' }: ByteSource): PlaceOrigin {
  return { source: name, coordinate };
}

/** A place in a source. */
export function placeIn(source: ByteSource, offset: number): Place {
  return { ...originOf(source), offset };
}

/** Fills all of `target` from `position` on. @throws MigrationError `truncated` if the source ends before. */
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
