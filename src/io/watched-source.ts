/**
 * A source whose reads can be watched, and end when a signal is aborted. Closing it leaves the original source open.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { announcements, type ByteSource, type OpenedSource } from './byte-source.ts';
import type { AbortSignalLike } from './platform.ts';

/** How a source is watched. */
export interface Watch {
  signal?: AbortSignalLike;
  /** Called after each read, with the number of bytes. */
  onRead?: (bytes: number) => void;
}

/** @throws the signal's reason, from `read`. */
export function watchSource(source: ByteSource, { signal, onRead }: Watch): OpenedSource {
  const note = (count: number) => {
    onRead?.(count);
    return count;
  };
  return {
    name: source.name,
    ...(source.coordinate === undefined ? {} : { coordinate: source.coordinate }),
    size: source.size,
    read(target, position) {
      signal?.throwIfAborted();
      const count = source.read(target, position);
      return typeof count === 'number' ? note(count) : count.then(note);
    },
    ...announcements(source),
    close: async () => {},
    [asyncDispose]: async () => {},
  };
}
