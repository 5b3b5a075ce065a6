/**
 * Work that a signal can end. Aborted work throws the signal's reason. It ends at reads and writes, including a read
 * that waits for a pipe or a server. Work in memory goes on to its next read or write, at most one buffer later.
 */
import { kindOf } from '../vm/kind-of.ts';
import { type ByteSink, type ByteSource, type ByteStore, requireCount, requireSink } from './byte-source.ts';
import type { AbortSignalLike } from './platform.ts';

/** The option of every function that may take long. */
export interface Abortable {
  /** Ends the work early: it closes what it opened and throws the signal's reason. */
  signal?: AbortSignalLike | undefined;
}

/** Waits for work until a signal is aborted. The work itself goes on. */
export async function orAborted<Result>(work: Promise<Result>, signal: AbortSignalLike | undefined): Promise<Result> {
  if (signal === undefined) return work;
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
    // Nothing waits for it any more.
    work.catch(() => {});
  }
}

/** Sources whose reads end when one of the active signals is aborted. */
export class ReadGuard {
  readonly #signals = new Set<AbortSignalLike>();
  /** Reads that nothing waits for any more. They still write to their targets. */
  readonly #left = new Map<ByteSource, Promise<unknown>>();

  /** Returns the source with guarded reads. It keeps the source's other properties and its class. */
  wrap<Source extends ByteSource>(source: Source): Source {
    return Object.create(source, {
      size: { get: () => source.size },
      read: { value: (target: Uint8Array, position: number) => this.#read(source, target, position) },
      close: { value: () => source.close() },
      // The method of the source has no access to its private fields through the wrapper.
      willRead: { value: source.willRead && ((from: number, to: number) => source.willRead?.(from, to)) },
    });
  }

  /** Does work that a signal may end. */
  async during<Result>(signal: AbortSignalLike, work: () => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    // Part of a larger work, at whose end the signal is removed.
    if (this.#signals.has(signal)) return work();
    this.#signals.add(signal);
    try {
      return await work();
    } finally {
      this.#signals.delete(signal);
    }
  }

  #read(source: ByteSource, target: Uint8Array, position: number): Promise<number> | number {
    for (const signal of this.#signals) signal.throwIfAborted();
    const left = this.#left.get(source);
    if (left !== undefined) return left.then(() => this.#read(source, target, position));
    const count = source.read(target, position);
    if (typeof count === 'number') {
      requireCount(source.name, count, target);
      return count;
    }
    const checked = checkedCount(source.name, count, target);
    return this.#signals.size === 0 ? checked : this.#wait(source, checked);
  }

  async #wait(source: ByteSource, count: Promise<number>): Promise<number> {
    let isDone = false;
    const done = count
      .catch(() => {})
      .then(() => {
        isDone = true;
        this.#left.delete(source);
      });
    try {
      let guarded = count;
      for (const signal of this.#signals) guarded = orAborted(guarded, signal);
      return await guarded;
    } catch (error) {
      if (!isDone) this.#left.set(source, done);
      throw error;
    }
  }
}

async function checkedCount(name: string, reading: Promise<number>, target: Uint8Array): Promise<number> {
  const count = await reading;
  requireCount(name, count, target);
  return count;
}

/** A sink that refuses writes once a signal is aborted. @throws TypeError for anything but a sink */
export function abortableSink(sink: ByteSink, signal: AbortSignalLike | undefined): ByteSink {
  requireSink(sink);
  if (signal === undefined) return sink;
  return {
    write(bytes) {
      signal.throwIfAborted();
      const writing = sink.write(bytes);
      return writing === undefined ? undefined : orAborted(writing, signal);
    },
  };
}

/** A store that refuses reads and writes once a signal is aborted. @throws TypeError for anything but a store */
export function abortableStore(store: ByteStore, signal: AbortSignalLike | undefined): ByteStore {
  if (typeof store?.write !== 'function' || typeof store.read !== 'function') {
    throw new TypeError(`expected an output with the methods read and write, got ${kindOf(store)}`);
  }
  if (signal === undefined) return store;
  return Object.create(store, {
    size: { get: () => store.size },
    read: {
      value(target: Uint8Array, position: number) {
        signal.throwIfAborted();
        return store.read(target, position);
      },
    },
    write: {
      value(bytes: Uint8Array, position: number) {
        signal.throwIfAborted();
        return store.write(bytes, position);
      },
    },
    punch: {
      value:
        store.punch &&
        ((position: number, length: number) => {
          signal.throwIfAborted();
          store.punch?.(position, length);
        }),
    },
    truncate: {
      value(size: number) {
        signal.throwIfAborted();
        return store.truncate(size);
      },
    },
    sync: { value: () => store.sync() },
    close: { value: () => store.close() },
  });
}
