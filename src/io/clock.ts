/** A clock that can be replaced, so that what depends on time can be tested without waiting. */
import type { AbortSignalLike } from './platform.ts';

export interface Clock {
  /** Milliseconds since any fixed moment. */
  now(): number;
  /** Resolves after `ms` milliseconds. Rejects with the reason of `signal` as soon as that is aborted. */
  sleep(ms: number, signal?: AbortSignalLike): Promise<void>;
}

/** The platform's own clock. It does not jump when the time of day is set. */
export const systemClock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      if (signal?.aborted === true) return reject(signal.reason);
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', end);
        resolve();
      }, ms);
      signal?.addEventListener('abort', end, { once: true });
    }),
};
