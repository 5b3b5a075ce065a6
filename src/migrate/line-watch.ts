/**
 * Watches the lines of a migration: for how long nothing has come or gone, and who broke them first. All
 * lines of a migration end together.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import { WrappedConnection } from '../io/wrapped-connection.ts';

/** How often a silent peer is reported, in ms. */
const reportMs = 10_000;
const tickMs = 250;

/** Who is at the other end of a line. */
export type Peer = 'source' | 'target';

export interface LineWatchOptions {
  clock?: Clock;
  /** A peer that sends and takes no byte for this long, in ms, has failed. Default: no limit. */
  idleTimeoutMs?: number | undefined;
  /** Called while the peer is silent, every 10 s, with the time since the last byte in ms, and what is waited for. */
  onWaiting?: ((silentMs: number, what: string) => void) | undefined;
  /** What is waited for while no line has to take bytes. Default: that the source sends more. */
  awaited?: (() => string) | undefined;
  /** Called with each failure. */
  onFailure?: ((error: unknown) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export class LineWatch {
  readonly #clock: Clock;
  readonly #options: LineWatchOptions;
  readonly #lines = new Set<Connection>();
  /** The peers that have to take bytes. */
  readonly #writing: Peer[] = [];
  readonly #done = new AbortController();
  readonly #onAbort = () => this.fail(this.#options.signal?.reason);
  #latest: number;
  #failure: { error: unknown } | undefined;
  /** The peer is not expected to do anything. */
  #isPaused = false;

  constructor(options: LineWatchOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#latest = this.#clock.now();
    if (options.signal?.aborted === true) this.#onAbort();
    else options.signal?.addEventListener('abort', this.#onAbort, { once: true });
    void this.#watch();
  }

  /** The first failure: of the caller's signal, of the time limit, or of what was reported by {@link fail}. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  /** The error to report for one that was caught: the first cause. */
  causeOf(error: unknown): unknown {
    return this.#failure === undefined ? error : this.#failure.error;
  }

  /** @throws the first failure */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Breaks all lines, those to come included. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const line of this.#lines) line.destroy();
    this.#options.onFailure?.(this.#failure.error);
  }

  /** Watches a line to a peer. Use the result in its place. */
  add(line: Connection, peer: Peer = 'source'): Connection {
    this.#lines.add(line);
    if (this.#failure !== undefined) line.destroy();
    return new WatchedConnection(line, this, peer);
  }

  /** Waits until a peer has taken bytes. */
  async whileTaking(peer: Peer, write: Promise<void>): Promise<void> {
    this.#writing.push(peer);
    try {
      await write;
      this.touch();
    } finally {
      this.#writing.splice(this.#writing.indexOf(peer), 1);
    }
  }

  /** A byte came or went, or something else shows that the work goes on. */
  touch(): void {
    this.#latest = this.#clock.now();
  }

  /** The peer is not expected to do anything until {@link resume}: this side is at work. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.touch();
  }

  /** Ends the watch. The lines live on. */
  stop(): void {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#done.abort();
  }

  get #awaited(): string {
    const [peer] = this.#writing;
    if (peer !== undefined) return `the ${peer} to take more`;
    return this.#options.awaited?.() ?? 'the source to send more';
  }

  async #watch(): Promise<void> {
    const { idleTimeoutMs = Number.POSITIVE_INFINITY, onWaiting } = this.#options;
    let reports = 0;
    for (;;) {
      try {
        await this.#clock.sleep(tickMs, this.#done.signal);
      } catch {
        return;
      }
      if (this.#isPaused) continue;
      const silent = this.#clock.now() - this.#latest;
      if (silent >= idleTimeoutMs) {
        return this.fail(new PeerError(`the peer was silent for ${Math.round(silent / 100) / 10} s`));
      }
      if (silent < reportMs) reports = 0;
      else if (silent >= reportMs * (reports + 1)) {
        reports++;
        onWaiting?.(silent, this.#awaited);
      }
    }
  }
}

/** A connection that reports to a watch. */
class WatchedConnection extends WrappedConnection {
  readonly #watch: LineWatch;
  readonly #peer: Peer;

  constructor(line: Connection, watch: LineWatch, peer: Peer) {
    super(line);
    this.#watch = watch;
    this.#peer = peer;
  }

  override async read(target: Uint8Array, position: number): Promise<number> {
    // Before that, this side was at work.
    this.#watch.touch();
    const count = await this.line.read(target, position);
    this.#watch.touch();
    return count;
  }

  override async write(bytes: Uint8Array): Promise<void> {
    await this.#watch.whileTaking(this.#peer, this.line.write(bytes));
  }
}
