/**
 * The precopy loop of a source: sends dirty pages while the guest runs, until so few are left that it may be stopped.
 * It is QEMU's loop, with QEMU's rules (`schema/precopy-rules.ts`).
 *
 *          ┌───────────────────────────── window of 100 ms ─────────────────────────────┐
 *     left < threshold? ──no──→ PART: pages until the budget is spent, or 50 ms ──→ sleep until its end
 *          │yes                      ↑                                                  │
 *        sync ── still? ──no─────────┘             bandwidth → threshold, expected-downtime
 *                  │yes
 *                switch over: completion, or at any turn postcopy (postcopy.ts), once that is asked for
 *
 * Which pages are sent, and how, is decided by `write/passes.ts`. What the guest is stopped for comes after the loop
 * (`source.ts`).
 */
import type { Clock } from '../io/clock.ts';
import {
  AutoConverge,
  DirtyTrigger,
  endWindow,
  forcedSyncMs,
  partMs,
  periodMs,
  type ThrottleParameters,
  type WindowParameters,
} from '../schema/precopy-rules.ts';
import type { Passes } from '../write/passes.ts';
import { RateWindow } from './rate-window.ts';

/** The parameters of the loop, under QEMU's names. They are read anew for each decision. */
export interface PrecopyParameters extends WindowParameters, ThrottleParameters {
  /** Bytes/s; 0: no limit. */
  'max-bandwidth': number;
  /** Bytes/s of pages that nobody asked for, in postcopy; 0, or missing: no limit. */
  'max-postcopy-bandwidth'?: number;
}

/** The members of `query-migrate` that the loop knows. */
export interface PrecopyFigures {
  /** In ms. */
  'expected-downtime': number;
  /** In pages per second, in the latest period. */
  'dirty-pages-rate': number;
  /** 0: the guest is not slowed down. */
  'cpu-throttle-percentage': number;
}

/** What the loop works with. */
export interface PrecopyOptions {
  parameters: Readonly<PrecopyParameters>;
  /** Bytes of a page. */
  pageSize: number;
  /** Bytes made so far, for all lines together. */
  made: () => number;
  /** Lets everything that was made leave. */
  flush: () => Promise<void>;
  clock: Clock;
  /** Ends the loop. */
  signal: AbortSignal;
  /** Slows the guest down, with auto-converge. Undefined: auto-converge is off. */
  throttle?: ((percentage: number) => Promise<void> | void) | undefined;
  /** Limits the vCPUs, with dirty-limit: called whenever the guest dirties too much. Undefined: it is off. */
  limitVcpus?: (() => Promise<void> | void) | undefined;
  /** Whether a sync is forced every 5 s with auto-converge, as in QEMU 10.0. Default false. */
  forcesSyncs?: boolean;
  /** Whether the destination has allowed the switchover. Default: it need not. */
  maySwitchOver?: () => boolean;
  /** Whether postcopy was asked for. Default: it was not. */
  isPostcopyWanted?: () => boolean;
  /** Called after each sync with their number (MIGRATION_PASS). */
  onSync?: (count: number) => void;
  /** Called at the end of each window, before the next one's bytes leave. */
  onWindow?: () => void;
  /** Called at the end of a period with the pages that were sent in it in any form. */
  onPeriod?: (pages: number) => void;
}

/** PARTs without pages in each window in which it waits for the word to switch over. QEMU sends them without a pause. */
const waitingParts = 16;
/** The most pages to send between two looks at the clock. */
const stepPages = 256;

export class Precopy {
  readonly figures: PrecopyFigures;
  readonly #passes: Passes;
  readonly #options: PrecopyOptions;
  readonly #autoConverge = new AutoConverge();
  readonly #trigger = new DirtyTrigger();
  /** Bytes that may be left when the guest is stopped. 0 in the first window. */
  #threshold = 0;
  readonly #window: RateWindow;
  #period = { start: 0, dirtied: 0, bytes: 0, pages: 0 };
  #hasPeriod = false;
  /** Bytes that were left right after the latest sync. */
  #leftAtSync = 0;
  #forced = { at: 0, syncs: 0 };

  constructor(passes: Passes, options: PrecopyOptions) {
    this.#passes = passes;
    this.#options = options;
    const { clock, made, signal, parameters } = options;
    this.#window = new RateWindow({ clock, made, signal, rate: () => parameters['max-bandwidth'] });
    this.figures = {
      'expected-downtime': options.parameters['downtime-limit'],
      ...{ 'dirty-pages-rate': 0, 'cpu-throttle-percentage': 0 },
    };
  }

  /** Members of `query-migrate`, besides `ram`. */
  get members(): { 'expected-downtime': number; 'cpu-throttle-percentage'?: number } {
    const { 'expected-downtime': expected, 'cpu-throttle-percentage': percentage } = this.figures;
    return { 'expected-downtime': expected, ...(percentage > 0 ? { 'cpu-throttle-percentage': percentage } : {}) };
  }

  /** A dirty sync, which begins a pass. */
  async sync(): Promise<void> {
    const { clock, pageSize, made, onSync } = this.#options;
    const passes = this.#passes;
    const before = passes.dirtyBytes;
    await passes.sync();
    const now = clock.now();
    if (!this.#hasPeriod) this.#period = { start: now, dirtied: 0, bytes: made(), pages: passes.records };
    this.#hasPeriod = true;
    this.#leftAtSync = passes.dirtyBytes;
    this.#period.dirtied += (this.#leftAtSync - before) / pageSize;
    if (now > this.#period.start + periodMs) await this.#endPeriod(now);
    onSync?.(passes.syncs);
  }

  async #endPeriod(now: number): Promise<void> {
    const { pageSize, made, parameters, throttle, limitVcpus, onPeriod } = this.#options;
    const { start, dirtied, bytes, pages } = this.#period;
    const [dirtiedBytes, sent] = [dirtied * pageSize, made() - bytes];
    if (limitVcpus !== undefined && this.#trigger.endPeriod(dirtiedBytes, sent, parameters)) await limitVcpus();
    if (throttle !== undefined && this.#autoConverge.endPeriod(dirtiedBytes, sent, parameters)) {
      this.figures['cpu-throttle-percentage'] = this.#autoConverge.percentage;
      await throttle(this.#autoConverge.percentage);
    }
    this.figures['dirty-pages-rate'] = Math.floor((dirtied * 1000) / (now - start));
    onPeriod?.(this.#passes.records - pages);
    this.#period = { start: now, dirtied: 0, bytes: made(), pages: this.#passes.records };
  }

  /** Looks at its conditions again now, because one of them has changed. */
  wake(): void {
    this.#window.wake();
  }

  /**
   * Sends until the guest may be stopped. Returns what follows: `completion`, or `postcopy` if that is wanted and more is
   * left than may be sent while the guest stands still.
   * @throws the reason of the signal, and what sending throws
   */
  async run(): Promise<'completion' | 'postcopy'> {
    const { signal, clock, isPostcopyWanted = () => false, maySwitchOver = () => true } = this.#options;
    this.#window.begin();
    this.#forced = { at: clock.now() + forcedSyncMs, syncs: this.#passes.syncs };
    for (;;) {
      signal.throwIfAborted();
      if (!this.#window.isSpent) {
        if (await this.#isDone()) return 'completion';
        if (isPostcopyWanted() && maySwitchOver()) return 'postcopy';
        await this.#sendPart();
      }
      await this.#force();
      await this.#endWindow();
    }
  }

  /** Whether the guest may be stopped now. Syncs first if that seems so. */
  async #isDone(): Promise<boolean> {
    const passes = this.#passes;
    const { maySwitchOver = () => true } = this.#options;
    if (!maySwitchOver()) {
      // Nothing depends on the threshold yet.
      if (passes.dirtyBytes === 0) await this.sync();
      return false;
    }
    if (passes.dirtyBytes < this.#threshold) await this.sync();
    return passes.dirtyBytes === 0 || passes.dirtyBytes < this.#threshold;
  }

  async #sendPart(): Promise<void> {
    const { clock, pageSize, signal } = this.#options;
    const passes = this.#passes;
    const start = clock.now();
    do {
      signal.throwIfAborted();
      if ((await passes.sendSome(this.#window.mostPages(stepPages, pageSize))) === 0) break;
    } while (!this.#window.isSpent && clock.now() < start + partMs);
    await passes.endPart();
  }

  /** With auto-converge, QEMU 10.0 syncs every 5 s if nothing else did. */
  async #force(): Promise<void> {
    const { forcesSyncs = false, throttle, clock } = this.#options;
    if (!forcesSyncs || throttle === undefined || clock.now() < this.#forced.at) return;
    if (this.#passes.syncs === this.#forced.syncs && this.#passes.syncs > 1) await this.sync();
    this.#forced = { at: this.#forced.at + forcedSyncMs, syncs: this.#passes.syncs };
  }

  /** Ends the window if it is over, or waits for that if there is nothing to do in it. */
  async #endWindow(): Promise<void> {
    const { flush, parameters, maySwitchOver = () => true, onWindow } = this.#options;
    const window = this.#window;
    const isWaiting = this.#passes.dirtyBytes === 0 && !maySwitchOver();
    const isIdle = window.isSpent || isWaiting;
    if (!window.isOver && !isIdle) return;
    if (isIdle) {
      for (let i = 0; isWaiting && i < waitingParts; i++) await this.#passes.emptyPart();
      await flush();
      await window.sleep();
      if (!window.isOver) return;
    }
    const { threshold, 'expected-downtime': expected } = endWindow(window.content, parameters, {
      dirtyPagesRate: this.figures['dirty-pages-rate'],
      dirtyBytesLastSync: this.#leftAtSync,
    });
    this.#threshold = threshold;
    if (expected !== undefined) this.figures['expected-downtime'] = expected;
    onWindow?.();
    window.begin();
  }
}
