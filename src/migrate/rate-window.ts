/**
 * QEMU's window of 100 ms: the bytes that may leave in it, and a sleep until its end that can be cut short.
 *
 *     |####....|####....|##......|      # what leaves; then it sleeps, unless there is no limit
 */
import type { Clock } from '../io/clock.ts';
import { windowBudget, windowMs } from '../schema/precopy-rules.ts';

export interface RateWindowOptions {
  clock: Clock;
  /** Bytes made so far, for all lines together. */
  made: () => number;
  /** Bytes per second; 0: no limit. Read anew for each decision. */
  rate: () => number;
  /** Ends a sleep. */
  signal: AbortSignal;
}

export class RateWindow {
  readonly #options: RateWindowOptions;
  #start = 0;
  #bytes = 0;
  #wake: (() => void) | undefined;

  constructor(options: RateWindowOptions) {
    this.#options = options;
    this.begin();
  }

  /** Begins a window now. */
  begin(): void {
    const { clock, made } = this.#options;
    this.#start = clock.now();
    this.#bytes = made();
  }

  /** What has left in this window, and how long it has lasted so far. */
  get content(): { ms: number; bytes: number } {
    const { clock, made } = this.#options;
    return { ms: clock.now() - this.#start, bytes: made() - this.#bytes };
  }

  /** Bytes that may still leave in this window. */
  get budgetLeft(): number {
    const { made, rate } = this.#options;
    const budget = windowBudget(rate());
    return budget === 0 ? Number.POSITIVE_INFINITY : budget - (made() - this.#bytes);
  }

  /** The budget is spent with the page that exceeds it. */
  get isSpent(): boolean {
    return this.budgetLeft < 0;
  }

  /** The most pages to send before the budget is looked at again. */
  mostPages(step: number, pageSize: number): number {
    return Math.min(step, Math.floor(this.budgetLeft / pageSize) + 1);
  }

  /** Whether it has lasted as long as it must. */
  get isOver(): boolean {
    return this.#options.clock.now() >= this.#start + windowMs;
  }

  /** Ends a sleep, because something has changed. */
  wake(): void {
    this.#wake?.();
  }

  /** Sleeps until the window is over, or until {@link wake}. @throws the reason of the signal */
  async sleep(): Promise<void> {
    const { clock, signal } = this.#options;
    const left = this.#start + windowMs - clock.now();
    if (left <= 0) return;
    const woken = new AbortController();
    const wake = () => woken.abort();
    this.#wake = wake;
    signal.addEventListener('abort', wake, { once: true });
    try {
      await clock.sleep(left, woken.signal).catch(() => signal.throwIfAborted());
    } finally {
      signal.removeEventListener('abort', wake);
      this.#wake = undefined;
    }
  }
}
