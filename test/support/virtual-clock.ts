/**
 * A clock that jumps to the end of the next sleep as soon as nothing else happens, so that hours take moments. Sleeps of
 * 10 s and more are those of watchers, for which nobody waits: they end when time has come that far, and do not make
 * it jump.
 */
import type { Clock } from '../../src/io/clock.ts';
import { settle } from './manual-clock.ts';

/** Turns of the event loop after which nothing else happens. */
const quietTurns = 3;
const watcherMs = 10_000;

export class VirtualClock implements Clock {
  #now = 0;
  #sleeps: { due: number; isWatcher: boolean; wake: () => void }[] = [];
  #isWatching = false;

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason);
      const end = () => {
        this.#sleeps = this.#sleeps.filter((each) => each !== sleep);
        reject(signal?.reason);
      };
      const wake = () => {
        signal?.removeEventListener('abort', end);
        resolve();
      };
      const sleep = { due: this.#now + ms, isWatcher: ms >= watcherMs, wake };
      this.#sleeps.push(sleep);
      signal?.addEventListener('abort', end, { once: true });
      void this.#watch();
    });
  }

  async #watch(): Promise<void> {
    if (this.#isWatching) return;
    this.#isWatching = true;
    while (this.#sleeps.some(({ isWatcher }) => !isWatcher)) {
      for (let turn = 0; turn < quietTurns; turn++) await settle();
      const next = Math.min(...this.#sleeps.map(({ due }) => due));
      if (!this.#sleeps.some(({ isWatcher }) => !isWatcher)) break;
      this.#now = Math.max(this.#now, next);
      const awake = this.#sleeps.filter(({ due }) => due <= this.#now);
      this.#sleeps = this.#sleeps.filter(({ due }) => due > this.#now);
      for (const { wake } of awake) wake();
    }
    this.#isWatching = false;
  }
}
