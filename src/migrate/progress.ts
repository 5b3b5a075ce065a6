/**
 * The progress of a live migration, under the names of QEMU's `query-migrate`.
 *
 *     status   setup → active → device [→ postcopy-active ⇄ postcopy-paused, postcopy-recover] → completed
 *                 └───────┴────────┴──→ failed, cancelled
 *
 * Progress is a callback, not an async iterator: a callback that nobody gave costs nothing, and a slow reader of an
 * iterator would either hold the migration back or collect old values.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { XbzrleStatistics } from '../write/xbzrle-cache.ts';

/** QEMU's MigrationStatus, as far as vmferry has it. */
export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device';

/** The member `ram` of `query-migrate`. Bytes, unless it says otherwise. */
export interface RamProgress {
  /** Bytes of the stream and of its multifd channels so far. */
  transferred: number;
  /**
   * Bytes of pages that are still to be sent. A destination is not told: from the second pass on it estimates them from the
   * dirty rate, and has 0 until that is known.
   */
  remaining: number;
  /** Bytes of all RAM blocks that migrate. */
  total: number;
  /** Zero pages. */
  duplicate: number;
  /** Pages sent as data, and their bytes. */
  normal: number;
  'normal-bytes': number;
  'page-size': number;
  /** Syncs of the dirty bitmap, which are passes over RAM. */
  'dirty-sync-count': number;
  /** 10^6 bits per second in the latest 100 ms; on average once it is completed. */
  mbps: number;
  /** Pages per second in the latest 100 ms. */
  'pages-per-second': number;
  /** Bytes on multifd channels. */
  'multifd-bytes': number;
  /** Pages that the guest dirties per second. A destination estimates them from the passes that have ended. */
  'dirty-pages-rate'?: number;
  /** Requests for pages, in postcopy. */
  'postcopy-requests'?: number;
  /** Bytes of RAM on the main stream and the preempt channel: while the guest ran, while it stood still, and in postcopy. */
  'precopy-bytes'?: number;
  'downtime-bytes'?: number;
  'postcopy-bytes'?: number;
}

/** The member `xbzrle-cache` of `query-migrate`. */
export interface XbzrleProgress {
  /** Bytes. */
  'cache-size': number;
  /** Bytes of deltas, and of pages whose deltas would have been too long. */
  bytes: number;
  /** Pages that were in the cache. */
  pages: number;
  /** Pages that were not. */
  'cache-miss': number;
  /** Misses per page sent, in the latest period. */
  'cache-miss-rate': number;
  /** Bytes of pages in the cache per byte of deltas, in the latest period. */
  'encoding-rate': number;
  /** Pages whose deltas would have been too long. */
  overflow: number;
}

/** The state of a live migration at one moment. Times are in ms. */
export interface MigrationProgress {
  status: MigrationStatus;
  'total-time': number;
  /** From the beginning to the first page. */
  'setup-time'?: number;
  /** How long the guest will stand still, or stood still. */
  'expected-downtime'?: number;
  downtime?: number;
  /** By how much the guest is slowed down, in per cent, while it is. */
  'cpu-throttle-percentage'?: number;
  /** With dirty-limit, once a limit is in force: the longest sleep of a vCPU, and how long a ring takes to be full, in µs. */
  'dirty-limit-throttle-time-per-round'?: number;
  'dirty-limit-ring-full-time'?: number;
  /** With XBZRLE. */
  'xbzrle-cache'?: XbzrleProgress;
  /** From the first page on. */
  ram?: RamProgress;
  /** With `failed`: the reason. */
  'error-desc'?: string;
}

/** A cache's statistics under QEMU's names. */
export function xbzrleMember(statistics: XbzrleStatistics): XbzrleProgress {
  const { cacheSize, bytes, pages, cacheMiss, cacheMissRate, encodingRate, overflow } = statistics;
  const rates = { 'cache-miss-rate': cacheMissRate, 'encoding-rate': encodingRate };
  return { 'cache-size': cacheSize, bytes, pages, 'cache-miss': cacheMiss, ...rates, overflow };
}

/** Who is told of the progress, and by which clock. */
export interface ProgressOptions {
  /** Called with each change of `status`, and at most every 100 ms in between. What it throws ends the migration. */
  onProgress?: ((progress: MigrationProgress) => void) | undefined;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
}

/** What a migration has counted. The rates are made of it. */
export type RamCounts = Omit<RamProgress, 'mbps' | 'pages-per-second' | 'normal-bytes'>;

/** Window of the rates, and the least time between two calls, in ms. */
const windowMs = 100;

/** Calls `onProgress`, at the right times and with QEMU's rates. */
export class ProgressMeter {
  readonly #onProgress: ProgressOptions['onProgress'];
  readonly #clock: Clock;
  readonly #count: () => RamCounts | undefined;
  readonly #more: (status: MigrationStatus) => Partial<MigrationProgress>;
  readonly #deltas: () => number;
  readonly #start: number;
  #status: MigrationStatus = 'none';
  #window: { start: number; bytes: number; pages: number };
  /** When progress was last reported. */
  #reported: number;
  #rates = { mbps: 0, 'pages-per-second': 0 };
  #setupTime: number | undefined;
  /** After this time the rates are taken at any moment. A burst that begins a window would distort them. */
  #longestMs = windowMs;

  /**
   * `count` returns what is counted; undefined before the first page. `more` returns further members, and `deltas` the
   * pages sent as deltas, which count for `pages-per-second` only.
   */
  constructor(
    { onProgress, clock = systemClock }: ProgressOptions,
    count: () => RamCounts | undefined,
    more: (status: MigrationStatus) => Partial<MigrationProgress> = () => ({}),
    deltas = () => 0,
  ) {
    this.#onProgress = onProgress;
    this.#clock = clock;
    this.#count = count;
    this.#more = more;
    this.#deltas = deltas;
    this.#start = clock.now();
    this.#window = { start: this.#start, bytes: 0, pages: 0 };
    this.#reported = this.#start;
  }

  get status(): MigrationStatus {
    return this.#status;
  }

  /** Changes the status, reports it, and returns what it reported. `error` is the reason of a failure. */
  enter(status: MigrationStatus, error?: string): MigrationProgress {
    this.#status = status;
    const now = this.#clock.now();
    if (status === 'active') {
      this.#setupTime ??= now - this.#start;
      this.#beginWindow(now, this.#count());
    }
    const progress = this.#at(now, error);
    if (status === 'active') this.#reported = now;
    this.#onProgress?.(progress);
    return progress;
  }

  /** A window of the bandwidth limit has ended: its rates count, and no other moment's for as long as windows follow. */
  endWindow(): void {
    this.#longestMs = 2 * windowMs;
    this.#beginWindow(this.#clock.now(), this.#count());
  }

  /** Call this when something was sent or received. It reports at most every 100 ms. */
  tick(): void {
    if (this.#onProgress === undefined) return;
    const now = this.#clock.now();
    if (now < this.#reported + windowMs) return;
    this.#reported = now;
    this.#onProgress(this.#at(now));
  }

  /** The state now. */
  now(): MigrationProgress {
    return this.#at(this.#clock.now());
  }

  #at(now: number, error?: string): MigrationProgress {
    const counts = this.#count();
    const total = now - this.#start;
    if (now >= this.#window.start + this.#longestMs) this.#beginWindow(now, counts);
    const progress: MigrationProgress = { status: this.#status, 'total-time': Math.round(total) };
    if (this.#setupTime !== undefined) progress['setup-time'] = Math.round(this.#setupTime);
    if (error !== undefined) progress['error-desc'] = error;
    Object.assign(progress, this.#more(this.#status));
    if (counts === undefined) return progress;
    const isDone = this.#status === 'completed';
    const average = (counts.transferred * 8) / Math.max(1, total - (this.#setupTime ?? 0)) / 1000;
    const rates = isDone ? { ...this.#rates, mbps: average } : this.#rates;
    progress.ram = { ...counts, ...rates, 'normal-bytes': counts.normal * counts['page-size'] };
    if (isDone) progress.ram.remaining = 0;
    if (isDone && progress.ram['dirty-pages-rate'] !== undefined) progress.ram['dirty-pages-rate'] = 0;
    return progress;
  }

  /** Takes the rates of the window that ends now, and begins the next one. */
  #beginWindow(now: number, counts: RamCounts | undefined): void {
    const { start, bytes, pages } = this.#window;
    const transferred = counts?.transferred ?? 0;
    const sent = (counts?.normal ?? 0) + (counts?.duplicate ?? 0) + this.#deltas();
    const ms = now - start;
    if (ms > 0) {
      this.#rates = { mbps: ((transferred - bytes) * 8) / ms / 1000, 'pages-per-second': ((sent - pages) * 1000) / ms };
    }
    this.#window = { start: now, bytes: transferred, pages: sent };
  }
}
