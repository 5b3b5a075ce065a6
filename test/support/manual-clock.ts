/** A clock that stands still until a test moves it. */
import type { Clock } from '../../src/io/clock.ts';

/** Lets everything happen that waits for no clock. */
export const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

export class ManualClock implements Clock {
  #now = 0;
  #sleeps: { due: number; wake: () => void }[] = [];

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
      const sleep = { due: this.#now + ms, wake };
      this.#sleeps.push(sleep);
      signal?.addEventListener('abort', end, { once: true });
    });
  }

  /** Whether someone sleeps. */
  get hasSleeper(): boolean {
    return this.#sleeps.length > 0;
  }

  /** Moves on by `ms`, from one end of a sleep to the next. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const next = this.#sleeps.reduce<number>((least, { due }) => Math.min(least, due), Number.POSITIVE_INFINITY);
      if (next > end) break;
      this.#now = Math.max(this.#now, next);
      const awake = this.#sleeps.filter(({ due }) => due <= this.#now);
      this.#sleeps = this.#sleeps.filter(({ due }) => due > this.#now);
      for (const { wake } of awake) wake();
      await settle();
    }
    this.#now = end;
  }
}
