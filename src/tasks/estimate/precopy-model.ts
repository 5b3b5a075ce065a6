/**
 * Simulates a precopy migration in virtual time, by QEMU's own rules. It knows the guest only by numbers: pages are counted,
 * not kept.
 *
 * Rules of QEMU 10.0:
 * - Windows of 100 ms. Each has a budget of a tenth of max-bandwidth, which is checked before every page.
 * - The threshold is what was sent per ms in the last window, times downtime-limit. It is 0 in the first window.
 * - When less than the threshold is left, a dirty sync begins the next pass. If less is left after the sync too, the migration
 *   completes.
 * - auto-converge slows the guest at every second sync after which too much was dirtied, at least a second apart. It also
 *   forces a sync every 5 s.
 *
 *     window  |#########.|#########.|#########.|##.  : .#######|     # sent   . slept
 *     pass     1 ------------------------------ 2 -- 3 ------ 4      a sync at each number
 *                                    pending < threshold ^
 *
 * The model leaves out a destination or network slower than the bandwidth, the time to read and scan memory, and the time for
 * device states at the end.
 */
import {
  AutoConverge,
  forcedSyncMs,
  periodMs,
  type ThrottleParameters,
  throttleDefaults,
  windowBudget,
  windowMs,
} from '../../schema/precopy-rules.ts';
import type { Dirtying } from './dirtying.ts';

/** Bytes besides page data: header of a page, a zero page, header of an XBZRLE page, begin and end of a part of the ram section. */
const pageHeader = 8;
const zeroRecord = 9;
const xbzrleHeader = 11;
const partHeader = 5;
const partEnd = 13;
/** A packet of 512 KiB of pages has a header of 320 bytes and 8 bytes per page. */
const packetShare = 8 + 320 / 128;
/**
 * A migration does not converge if this many passes in a row had the same amount to send, within a thousandth, or if it takes
 * longer than four hours plus thirty times its first pass.
 */
const stillPasses = 8;
const stillShare = 1e-3;
const maxMs = 4 * 3600 * 1000;
const maxFirstPasses = 30;
/** Upper bound on simulated windows, so that the simulation always ends. */
const maxWindows = 200_000;

/** The memory that a migration sends. */
export interface PrecopyMemory {
  pageSize: number;
  /** Pages that are sent as data, and as zero. */
  dataPages: number;
  zeroPages: number;
  /** How they are distributed in the order of the first pass, part by part. Default: evenly mixed. */
  layout?: readonly { dataPages: number; zeroPages: number }[];
}

/** The parameters of a migration. */
export interface PrecopyOptions {
  /** max-bandwidth in bytes/s. */
  bandwidth: number;
  /** In ms. */
  downtimeLimit: number;
  /** XBZRLE, for pages that are sent again. */
  xbzrle?: XbzrleFigures | undefined;
  /** Compression of multifd channels: of all data pages. */
  compression?: { ratio: number; bytesPerSecond: number } | undefined;
  autoConverge?: boolean;
  /** The parameters of auto-converge. Default: QEMU's. */
  throttle?: ThrottleParameters | undefined;
}

/** How XBZRLE would do. */
export interface XbzrleFigures {
  /** Mean bytes of an encoding that fits, and the share of encodings that do not fit. */
  meanBytes: number;
  overflowShare: number;
  /** The share of written pages that the cache can hold. */
  cachedShare: number;
}

/** A pass over the dirty pages. */
export interface PrecopyPass {
  /** When it began, in ms. */
  atMs: number;
  /** Pages to send at that time. */
  pages: number;
}

/** How a migration would go. */
export interface PrecopyPrediction {
  converges: boolean;
  /** dirty-sync-count at the end. */
  syncs: number;
  totalMs: number;
  /** Time to send the rest at the bandwidth after the guest was stopped. */
  downtimeMs: number;
  /** RAM bytes in the stream. */
  bytes: number;
  /** The last percentage by which auto-converge slowed the guest; 0 without it. */
  throttle: number;
  /** The first passes, at most 20. */
  passes: PrecopyPass[];
  /** The rates of dirtying and sending in the last period of at least a second, in bytes/s. */
  dirtyBytesPerSecond: number;
  sentBytesPerSecond: number;
}

/** Simulates a precopy migration in virtual time. */
export function simulatePrecopy(memory: PrecopyMemory, dirtying: Dirtying, options: PrecopyOptions): PrecopyPrediction {
  return new Precopy(memory, dirtying, options).run();
}

type How = Pick<PrecopyOptions, 'bandwidth' | 'compression'>;

/** Bytes of a data page in the stream. */
function dataCost({ pageSize }: PrecopyMemory, { compression }: Pick<How, 'compression'>): number {
  return compression === undefined ? pageSize + pageHeader : pageSize / compression.ratio + packetShare;
}

/** Bytes of the first pass, if the guest writes nothing. */
export function firstPassBytes(memory: PrecopyMemory, how: Pick<How, 'compression'>): number {
  return memory.dataPages * dataCost(memory, how) + memory.zeroPages * zeroRecord;
}

/** How long the first pass takes. */
export function firstPassSeconds(memory: PrecopyMemory, how: How): number {
  const byEngine =
    how.compression === undefined ? 0 : (memory.dataPages * memory.pageSize) / how.compression.bytesPerSecond;
  return Math.max(firstPassBytes(memory, how) / how.bandwidth, byEngine);
}

class Precopy {
  readonly #memory: Required<PrecopyMemory>;
  readonly #dirtying: Dirtying;
  readonly #options: PrecopyOptions;
  readonly #total: number;
  /** Time that compression takes for a data page; 0 without it. */
  readonly #engineMsPerPage: number;
  /** Mean bytes of a page in the first pass. */
  readonly #firstCost: number;
  /** Pages left to send: of the first pass, and dirtied ones. */
  #initial: number;
  #again = 0;
  /** The current part of the first pass, and how many pages of it were sent. */
  #part = 0;
  #sentOfPart = 0;
  /** Pages of the working set in the XBZRLE cache. */
  #cached = 0;
  #now = 0;
  /** The guest's time, which passes more slowly while the guest is throttled. */
  #guest = 0;
  #guestAtSync = 0;
  #sent = 0;
  #period = { from: 0, pages: 0, sent: 0 };
  readonly #autoConverge = new AutoConverge();
  readonly #passes: PrecopyPass[] = [];
  #syncs = 1;
  #rates = { dirty: 0, sent: 0 };
  /** Passes in a row with the same amount to send, and that amount. */
  #still = 0;
  #before = 0;
  #tick = { at: forcedSyncMs, syncs: 1 };

  constructor(memory: PrecopyMemory, dirtying: Dirtying, options: PrecopyOptions) {
    this.#memory = { ...memory, layout: memory.layout ?? [memory] };
    this.#dirtying = dirtying;
    this.#options = options;
    this.#total = memory.dataPages + memory.zeroPages;
    this.#initial = this.#total;
    const { compression } = options;
    this.#engineMsPerPage = compression === undefined ? 0 : (memory.pageSize / compression.bytesPerSecond) * 1000;
    this.#firstCost = firstPassBytes(memory, options) / Math.max(1, this.#total);
    this.#passes.push({ atMs: 0, pages: this.#total });
  }

  get #throttle(): ThrottleParameters {
    return this.#options.throttle ?? throttleDefaults;
  }

  get #pending(): number {
    return (this.#initial + this.#again) * this.#memory.pageSize;
  }

  run(): PrecopyPrediction {
    const { bandwidth, downtimeLimit } = this.#options;
    const firstPassMs = firstPassSeconds(this.#memory, this.#options) * 1000;
    const budget = windowBudget(bandwidth);
    const lastMs = maxMs + maxFirstPasses * firstPassMs;
    let threshold = 0;
    for (let windows = 0; windows < maxWindows && this.#now < lastMs && this.#still < stillPasses; windows++) {
      const start = this.#now;
      const sentBefore = this.#sent;
      const before = { initial: this.#initial, again: this.#again, part: this.#part, syncs: this.#syncs };
      if (this.#isForced()) this.#sync();
      for (;;) {
        if (this.#pending < threshold) this.#sync();
        if (this.#pending < 1 || this.#pending < threshold) return this.#complete();
        this.#send(budget - (this.#sent - sentBefore), windowMs - (this.#now - start));
        if (this.#sent - sentBefore > budget || this.#now - start >= windowMs) break;
      }
      this.#pass(windowMs - (this.#now - start));
      threshold = ((this.#sent - sentBefore) / windowMs) * downtimeLimit;
      this.#repeat(before, this.#sent - sentBefore, threshold);
    }
    return this.#result(false, 0);
  }

  /** Windows in the middle of a pass are alike, so they are simulated at once. */
  #repeat(
    before: { initial: number; again: number; part: number; syncs: number },
    bytes: number,
    threshold: number,
  ): void {
    if (before.syncs !== this.#syncs || before.part !== this.#part) return;
    const isInitial = this.#initial > 0;
    if (!isInitial && (before.initial > 0 || !this.#isCacheSettled())) return;
    const pages = isInitial ? before.initial - this.#initial : before.again - this.#again;
    if (pages <= 0) return;
    const { layout, pageSize } = this.#memory;
    const { dataPages, zeroPages } = layout[this.#part] ?? { dataPages: 0, zeroPages: 0 };
    const available = isInitial ? dataPages + zeroPages - this.#sentOfPart : this.#again;
    let times = Math.floor(Math.min(available / pages, (this.#pending - threshold) / (pages * pageSize))) - 1;
    if (this.#options.autoConverge === true) {
      times = Math.min(times, Math.floor((this.#tick.at - this.#now) / windowMs) - 1);
    }
    if (times < 1) return;
    if (isInitial) {
      this.#initial -= times * pages;
      this.#sentOfPart += times * pages;
    } else this.#again -= times * pages;
    this.#sent += times * bytes;
    this.#pass(times * windowMs);
  }

  /** Whether pages that are sent again cost the same from now on. */
  #isCacheSettled(): boolean {
    const { xbzrle } = this.#options;
    return xbzrle === undefined || this.#cached >= this.#dirtying.workingSet * xbzrle.cachedShare * (1 - 1e-6);
  }

  /** Sends pages until none are left, or the budget or the time of the window is used up. */
  #send(budget: number, ms: number): void {
    let left = budget - partHeader;
    let engineMs = 0;
    /** Sends as many of the available pages of one kind as possible. */
    const send = (available: number, cost: number, dataShare: number): number => {
      const msPerPage = this.#engineMsPerPage * dataShare;
      const byTime = msPerPage === 0 ? available : (ms - engineMs) / msPerPage;
      // The budget is checked before each page, so the last page exceeds it.
      const byBudget = left < 0 ? 0 : Math.floor(left / cost) + 1;
      const count = Math.max(0, Math.min(available, byTime, byBudget));
      left -= count * cost;
      engineMs += count * msPerPage;
      return available - count < 1e-6 ? available : count;
    };
    this.#sendInitial(send);
    if (this.#initial === 0) {
      const sent = send(this.#again, this.#againCost(), 1);
      this.#again -= sent;
      this.#fillCache(sent);
    }
    const bytes = budget - left + partEnd;
    this.#sent += bytes;
    const wireMs = (bytes / this.#options.bandwidth) * 1000;
    this.#pass(Math.min(ms, Math.max(wireMs, engineMs, 1e-3)));
  }

  /** Continues the first pass, part by part. */
  #sendInitial(send: (available: number, cost: number, dataShare: number) => number): void {
    const { layout } = this.#memory;
    while (this.#part < layout.length) {
      const { dataPages, zeroPages } = layout[this.#part] as (typeof layout)[number];
      const pages = dataPages + zeroPages;
      const left = pages - this.#sentOfPart;
      const cost = (dataPages * dataCost(this.#memory, this.#options) + zeroPages * zeroRecord) / Math.max(1, pages);
      const sent = send(left, cost, dataPages / Math.max(1, pages));
      this.#initial -= sent;
      if (sent < left) {
        this.#sentOfPart += sent;
        return;
      }
      this.#part++;
      this.#sentOfPart = 0;
    }
    this.#initial = 0;
  }

  /** Mean bytes of a page that is sent again. */
  #againCost(): number {
    const { xbzrle } = this.#options;
    const whole = dataCost(this.#memory, this.#options);
    if (xbzrle === undefined || this.#dirtying.workingSet === 0) return whole;
    const hits = Math.min(1, this.#cached / this.#dirtying.workingSet);
    const delta = xbzrle.overflowShare * whole + (1 - xbzrle.overflowShare) * (xbzrle.meanBytes + xbzrleHeader);
    return hits * delta + (1 - hits) * whole;
  }

  /** Adds the sent pages to the cache, as far as there is space. */
  #fillCache(sent: number): void {
    const { xbzrle } = this.#options;
    if (xbzrle === undefined) return;
    const most = this.#dirtying.workingSet * xbzrle.cachedShare;
    const misses = sent * (1 - Math.min(1, this.#cached / Math.max(1, this.#dirtying.workingSet)));
    this.#cached = Math.min(most, this.#cached + misses * xbzrle.cachedShare);
  }

  #pass(ms: number): void {
    this.#now += ms;
    this.#guest += ms * (1 - this.#autoConverge.percentage / 100);
  }

  #isForced(): boolean {
    if (this.#options.autoConverge !== true || this.#now < this.#tick.at) return false;
    const isForced = this.#syncs === this.#tick.syncs && this.#syncs > 1;
    this.#tick = { at: this.#tick.at + forcedSyncMs, syncs: this.#syncs + (isForced ? 1 : 0) };
    return isForced;
  }

  /** A dirty sync: pages written since the last one must be sent again, or still. */
  #sync(): void {
    const dirtied = this.#dirtying.dirtied((this.#guest - this.#guestAtSync) / 1000);
    this.#guestAtSync = this.#guest;
    const set = Math.max(1, this.#dirtying.workingSet);
    const known =
      this.#again * Math.min(1, dirtied / set) + this.#initial * Math.min(1, dirtied / Math.max(1, this.#total));
    const fresh = Math.max(0, dirtied - known);
    this.#again += fresh;
    this.#period.pages += fresh;
    this.#syncs++;
    if (this.#passes.length < 20)
      this.#passes.push({ atMs: Math.round(this.#now), pages: this.#again + this.#initial });
    this.#notice(this.#again + this.#initial);
    const elapsed = this.#now - this.#period.from;
    if (elapsed <= periodMs) return;
    const dirty = this.#period.pages * this.#memory.pageSize;
    const sent = this.#sent - this.#period.sent;
    this.#rates = { dirty: (dirty / elapsed) * 1000, sent: (sent / elapsed) * 1000 };
    if (this.#options.autoConverge === true) this.#autoConverge.endPeriod(dirty, sent, this.#throttle);
    this.#period = { from: this.#now, pages: 0, sent: this.#sent };
  }

  #notice(pages: number): void {
    const isSame = Math.abs(pages - this.#before) <= pages * stillShare;
    const canSlow =
      this.#options.autoConverge === true && this.#autoConverge.percentage < this.#throttle['max-cpu-throttle'];
    this.#still = isSame && !canSlow ? this.#still + 1 : 0;
    this.#before = pages;
  }

  /** Stops the guest, syncs once more, and sends the rest without a limit. */
  #complete(): PrecopyPrediction {
    const before = this.#sent;
    this.#syncs++;
    const pages = this.#initial + this.#again;
    this.#sent += this.#initial * this.#firstCost + this.#again * this.#againCost();
    const wireMs = ((this.#sent - before) / this.#options.bandwidth) * 1000;
    const downtimeMs = Math.max(wireMs, pages * this.#engineMsPerPage);
    this.#now += downtimeMs;
    return this.#result(true, downtimeMs);
  }

  #result(converges: boolean, downtimeMs: number): PrecopyPrediction {
    return {
      converges,
      syncs: this.#syncs,
      totalMs: Math.round(this.#now),
      downtimeMs: Math.round(downtimeMs),
      bytes: Math.round(this.#sent),
      throttle: this.#autoConverge.percentage,
      passes: this.#passes.map(({ atMs, pages }) => ({ atMs, pages: Math.round(pages) })),
      dirtyBytesPerSecond: Math.round(this.#rates.dirty),
      sentBytesPerSecond: Math.round(this.#rates.sent),
    };
  }
}
