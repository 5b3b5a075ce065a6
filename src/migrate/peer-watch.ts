/**
 * Watches a peer that something waits for. A peer that is silent is reported every 10 s, and given up after the idle
 * timeout if there is one. Time counts only while something waits for the peer: a slow file and a limit of the bandwidth
 * are not its fault.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { PeerError } from '../io/connection.ts';

export interface PeerWatchOptions {
  /** The peer is given up after this many ms without a byte. Default: no limit. */
  idleTimeoutMs?: number | undefined;
  /** Called every 10 s while the peer is silent, with the time since the last byte in ms, and what is waited for. */
  onWaiting?: ((silentMs: number, what: string) => void) | undefined;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
}

const noticeMs = 10_000;

export class PeerWatch {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #onWaiting: PeerWatchOptions['onWaiting'];
  readonly #onIdle: (error: PeerError) => void;
  readonly #closed = new AbortController();
  #waits = 0;
  #since = 0;
  #notices = 0;
  #what = '';

  /** `onIdle` gets the error for a peer that is given up. It is called once. */
  constructor(
    { idleTimeoutMs = Number.POSITIVE_INFINITY, onWaiting, clock = systemClock }: PeerWatchOptions,
    onIdle: (error: PeerError) => void,
  ) {
    this.#clock = clock;
    this.#idleMs = idleTimeoutMs;
    this.#onWaiting = onWaiting;
    this.#onIdle = onIdle;
    void this.#watch();
  }

  /** Waits for the peer to do `work`, described as `what`. */
  async during<Result>(what: string, work: Promise<Result>): Promise<Result> {
    if (this.#waits++ === 0) this.moved();
    this.#what = what;
    try {
      return await work;
    } finally {
      this.#waits--;
      this.moved();
    }
  }

  /** The peer took or sent a byte. */
  moved(): void {
    this.#since = this.#clock.now();
    this.#notices = 0;
  }

  /** Stops watching. */
  close(): void {
    this.#closed.abort();
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closed;
    const firstDue = Math.min(noticeMs, this.#idleMs);
    while (!signal.aborted) {
      const silent = this.#waits === 0 ? 0 : this.#clock.now() - this.#since;
      if (silent >= this.#idleMs) {
        this.#onIdle(new PeerError(`the peer was silent for ${this.#idleMs / 1000} s`, { code: 'ETIMEDOUT' }));
        return;
      }
      const seen = Math.floor(silent / noticeMs);
      if (seen > this.#notices) {
        this.#notices = seen;
        this.#onWaiting?.(silent, this.#what);
      }
      // Nothing that begins now can be due earlier.
      const due = this.#waits === 0 ? firstDue : Math.min((seen + 1) * noticeMs, this.#idleMs) - silent;
      await this.#clock.sleep(due, signal).catch(() => {});
    }
  }
}
