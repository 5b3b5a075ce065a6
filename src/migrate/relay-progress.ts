/**
 * The progress of a migration that passes through a relay.
 *
 *     source ──→ received ──→ relay ──→ transferred ──→ target        (bytes, over all connections)
 *
 * A relay that passes every byte on knows no pages, so the names of QEMU's `query-migrate` are few here.
 */
import type { Clock } from '../io/clock.ts';
import type { MigrationStatus } from './progress.ts';

/** How far a relayed migration is. */
export interface RelayProgress {
  status: Extract<MigrationStatus, 'active' | 'postcopy-active' | 'completed'>;
  /** Since the migration began, in ms. */
  'total-time': number;
  /** Bytes that the source has sent, over all connections. */
  received: number;
  /** Bytes that the target has taken, over all connections. */
  transferred: number;
  /** What goes to the target, in 10^6 bits per second in the latest 100 ms; on average once it is completed. */
  mbps: number;
}

/** What is counted. */
export type RelayCounts = Pick<RelayProgress, 'received' | 'transferred'> & { hasPostcopy: boolean };

const windowMs = 100;

/** Reports the progress every 100 ms while bytes move. */
export class RelayMeter {
  readonly #clock: Clock;
  readonly #count: () => RelayCounts;
  readonly #report: (progress: RelayProgress) => void;
  readonly #start: number;
  readonly #done = new AbortController();
  #latest: { at: number; received: number; transferred: number };

  constructor(clock: Clock, count: () => RelayCounts, report: (progress: RelayProgress) => void) {
    this.#clock = clock;
    this.#count = count;
    this.#report = report;
    this.#start = clock.now();
    this.#latest = { at: this.#start, received: 0, transferred: 0 };
    void this.#run();
  }

  /** Ends the reports. */
  stop(): void {
    this.#done.abort();
  }

  /** Reports the end of a migration that has succeeded. */
  complete(): void {
    this.stop();
    const { received, transferred } = this.#count();
    const time = this.#clock.now() - this.#start;
    this.#report({
      status: 'completed',
      'total-time': Math.round(time),
      received,
      transferred,
      mbps: rate(transferred, time),
    });
  }

  async #run(): Promise<void> {
    for (;;) {
      try {
        await this.#clock.sleep(windowMs, this.#done.signal);
      } catch {
        return;
      }
      const { received, transferred, hasPostcopy } = this.#count();
      const { at, ...before } = this.#latest;
      if (received === before.received && transferred === before.transferred) continue;
      const now = this.#clock.now();
      this.#latest = { at: now, received, transferred };
      this.#report({
        status: hasPostcopy ? 'postcopy-active' : 'active',
        'total-time': Math.round(now - this.#start),
        ...{ received, transferred, mbps: rate(transferred - before.transferred, now - at) },
      });
    }
  }
}

const rate = (bytes: number, ms: number): number => (bytes * 8) / Math.max(1, ms) / 1000;
