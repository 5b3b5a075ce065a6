/**
 * A precopy migration in virtual time: how QEMU would go through its passes, by QEMU's own rules, for a guest of which
 * only numbers are known. Pages are counted, not kept.
 *
 * Rules, from QEMU 10.0: windows of 100 ms, each with a budget of a tenth of max-bandwidth that is checked before every
 * page; a threshold of what was sent per ms in the last window times downtime-limit, 0 in the first; a dirty sync, which
 * begins a pass, whenever less than the threshold is left; completion if that is so after the sync, too; auto-converge's
 * steps after every second sync, at least a second apart, in which too much was dirtied, and its sync every 5 s.
 *
 *     window  |#########.|#########.|#########.|##.  : .#######|     # sent   . slept
 *     pass     1 ------------------------------ 2 -- 3 ------ 4      a sync at each number
 *                                    pending < threshold ^
 *
 * What is not in the model: the destination and the network being slower than the bandwidth, the time that
 * reading and scanning memory takes, the time that device states take at the end.
 */
import type { Dirtying } from './dirtying.ts';

export const windowMs = 100;
const startOfThrottling = { initial: 20, increment: 10, most: 99 };
/** Percent of what was sent that may be dirtied. */
const throttleTrigger = 50;
/** With auto-converge a sync comes at least this often, from the second on. */
const forcedSyncMs = 5000;
/** A period of dirtying is longer than this. */
const periodMs = 1000;
/** Beside a page in the stream: its header; a zero page; an XBZRLE page; the frame of a part of the ram section. */
const pageHeader = 8;
const zeroRecord = 9;
const xbzrleHeader = 11;
const partFrame = 18;
/** A packet of 512 KiB of pages has a header of 320 bytes and 8 bytes per page. */
const packetShare = 8 + 320 / 128;
/**
 * A migration does not converge if so many passes in a row had the same to send, but for a thousandth; or if it takes
 * longer than four hours and thirty times its first pass.
 */
const stillPasses = 8;
const stillShare = 1e-3;
const mostMs = 4 * 3600 * 1000;
const mostFirstPasses = 30;

export interface PrecopyMemory {
  pageSize: number;
  /** Pages that are sent as data, and as zero. */
  dataPages: number;
  zeroPages: number;
}

export interface PrecopyOptions {
  /** max-bandwidth in bytes/s. */
  bandwidth: number;
  /** In ms. */
  downtimeLimit: number;
  /** XBZRLE, for what is sent again. */
  xbzrle?: XbzrleFigures | undefined;
  /** Compression of multifd channels: of all data pages. */
  compression?: { ratio: number; bytesPerSecond: number } | undefined;
  autoConverge?: boolean;
}

export interface XbzrleFigures {
  /** Mean bytes of an encoding that fits, and which part of them does not. */
  meanBytes: number;
  overflowShare: number;
  /** Which part of the pages that are written can be in the cache. */
  cachedShare: number;
}

export interface PrecopyPass {
  /** When it began, in ms. */
  atMs: number;
  /** What was to be sent then. */
  pages: number;
}

export interface PrecopyPrediction {
  converges: boolean;
  /** dirty-sync-count at the end. */
  syncs: number;
  totalMs: number;
  /** Time to send what is left when the guest has been stopped, at the bandwidth. */
  downtimeMs: number;
  /** RAM bytes in the stream. */
  bytes: number;
  /** The last percentage of auto-converge; 0 without. */
  throttle: number;
  /** The first of the passes, 20 at most. */
  passes: PrecopyPass[];
  /** Of the last second and more: what was dirtied and what was sent, in bytes/s. */
  dirtyBytesPerSecond: number;
  sentBytesPerSecond: number;
}

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

/** How long it takes. */
export function firstPassSeconds(memory: PrecopyMemory, how: How): number {
  const byEngine =
    how.compression === undefined ? 0 : (memory.dataPages * memory.pageSize) / how.compression.bytesPerSecond;
  return Math.max(firstPassBytes(memory, how) / how.bandwidth, byEngine);
}

class Precopy {
  readonly #memory: PrecopyMemory;
  readonly #dirtying: Dirtying;
  readonly #options: PrecopyOptions;
  readonly #total: number;
  /** Data pages among those of the first pass. */
  readonly #dataShare: number;
  /** Bytes of a page of the first pass, in the mean. */
  readonly #firstCost: number;
  /** Pages to send: of the first pass, and dirtied ones. */
  #initial: number;
  #again = 0;
  /** Pages of the working set in the XBZRLE cache. */
  #cached = 0;
  #now = 0;
  /** The guest's time: throttled, it goes slower. */
  #guest = 0;
  #guestAtSync = 0;
  #sent = 0;
  #period = { from: 0, pages: 0, sent: 0 };
  #highCount = 0;
  #throttle = 0;
  readonly #passes: PrecopyPass[] = [];
  #syncs = 1;
  #rates = { dirty: 0, sent: 0 };
  /** Passes in a row that had the same to send; and how much that was. */
  #still = 0;
  #before = 0;
  #tick = { at: forcedSyncMs, syncs: 1 };

  constructor(memory: PrecopyMemory, dirtying: Dirtying, options: PrecopyOptions) {
    this.#memory = memory;
    this.#dirtying = dirtying;
    this.#options = options;
    this.#total = memory.dataPages + memory.zeroPages;
    this.#initial = this.#total;
    this.#dataShare = memory.dataPages / Math.max(1, this.#total);
    this.#firstCost = firstPassBytes(memory, options) / Math.max(1, this.#total);
    this.#passes.push({ atMs: 0, pages: this.#total });
  }

  get #pending(): number {
    return (this.#initial + this.#again) * this.#memory.pageSize;
  }

  run(): PrecopyPrediction {
    const { bandwidth, downtimeLimit } = this.#options;
    const firstPassMs = firstPassSeconds(this.#memory, this.#options) * 1000;
    const budget = Math.floor(bandwidth / 10);
    let threshold = 0;
    while (this.#now < mostMs + mostFirstPasses * firstPassMs && this.#still < stillPasses) {
      const start = this.#now;
      const sentBefore = this.#sent;
      if (this.#isForced()) this.#sync();
      for (;;) {
        if (this.#pending < threshold) this.#sync();
        if (this.#pending < 1 || this.#pending < threshold) return this.#complete();
        this.#send(budget - (this.#sent - sentBefore), windowMs - (this.#now - start));
        if (this.#sent - sentBefore > budget || this.#now - start >= windowMs) break;
      }
      this.#pass(windowMs - (this.#now - start));
      threshold = ((this.#sent - sentBefore) / windowMs) * downtimeLimit;
    }
    return this.#result(false, 0);
  }

  /** Sends pages until there are none, the budget of the window is used up, or its time. */
  #send(budget: number, ms: number): void {
    const { bandwidth, compression } = this.#options;
    const { pageSize } = this.#memory;
    let left = budget - partFrame;
    // Pages that the engines can compress in the time; zero pages among them cost nothing.
    const byTime =
      compression === undefined ? Number.POSITIVE_INFINITY : (compression.bytesPerSecond * ms) / 1000 / pageSize;
    const most = byTime / (this.#initial > 0 ? this.#dataShare : 1);
    let pages = most;
    let bytes = partFrame;
    let sentPages = 0;
    const take = (available: number, cost: number): number => {
      // The budget is looked at before each page: the last goes beyond it.
      const count = Math.max(0, Math.min(available, pages, left < 0 ? 0 : Math.floor(left / cost) + 1));
      left -= count * cost;
      bytes += count * cost;
      pages -= count;
      sentPages += count;
      return count;
    };
    this.#initial -= take(this.#initial, this.#firstCost);
    if (this.#initial < 1e-6) {
      this.#initial = 0;
      const sent = take(this.#again, this.#againCost());
      this.#again = this.#again - sent < 1e-6 ? 0 : this.#again - sent;
      this.#fillCache(sent);
    }
    this.#sent += bytes;
    const byWire = (bytes / bandwidth) * 1000;
    const byEngine = compression === undefined ? 0 : ms * Math.min(1, sentPages / most);
    this.#pass(Math.min(ms, Math.max(byWire, byEngine, 1e-3)));
  }

  /** Bytes of a page that is sent again, in the mean. */
  #againCost(): number {
    const { xbzrle } = this.#options;
    const whole = dataCost(this.#memory, this.#options);
    if (xbzrle === undefined || this.#dirtying.workingSet === 0) return whole;
    const hits = Math.min(1, this.#cached / this.#dirtying.workingSet);
    const delta = xbzrle.overflowShare * whole + (1 - xbzrle.overflowShare) * (xbzrle.meanBytes + xbzrleHeader);
    return hits * delta + (1 - hits) * whole;
  }

  /** Pages that were not in the cache are now, as far as there is room. */
  #fillCache(sent: number): void {
    const { xbzrle } = this.#options;
    if (xbzrle === undefined) return;
    const most = this.#dirtying.workingSet * xbzrle.cachedShare;
    const misses = sent * (1 - Math.min(1, this.#cached / Math.max(1, this.#dirtying.workingSet)));
    this.#cached = Math.min(most, this.#cached + misses * xbzrle.cachedShare);
  }

  #pass(ms: number): void {
    this.#now += ms;
    this.#guest += ms * (1 - this.#throttle / 100);
  }

  #isForced(): boolean {
    if (this.#options.autoConverge !== true || this.#now < this.#tick.at) return false;
    const isForced = this.#syncs === this.#tick.syncs && this.#syncs > 1;
    this.#tick = { at: this.#tick.at + forcedSyncMs, syncs: this.#syncs + (isForced ? 1 : 0) };
    return isForced;
  }

  /** A dirty sync: what was written since the last is to be sent again, or still. */
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
    if (this.#options.autoConverge === true && dirty > (sent * throttleTrigger) / 100 && ++this.#highCount >= 2) {
      this.#highCount = 0;
      const { initial, increment, most } = startOfThrottling;
      this.#throttle = this.#throttle === 0 ? initial : Math.min(most, this.#throttle + increment);
    }
    this.#period = { from: this.#now, pages: 0, sent: this.#sent };
  }

  #notice(pages: number): void {
    const isSame = Math.abs(pages - this.#before) <= pages * stillShare;
    const canSlow = this.#options.autoConverge === true && this.#throttle < startOfThrottling.most;
    this.#still = isSame && !canSlow ? this.#still + 1 : 0;
    this.#before = pages;
  }

  /** The guest is stopped: a last sync, and all that is left, without a limit. */
  #complete(): PrecopyPrediction {
    const { bandwidth, compression } = this.#options;
    const before = this.#sent;
    this.#syncs++;
    const pages = this.#initial + this.#again;
    this.#sent += this.#initial * this.#firstCost + this.#again * this.#againCost();
    const byWire = ((this.#sent - before) / bandwidth) * 1000;
    const byEngine =
      compression === undefined ? 0 : ((pages * this.#memory.pageSize) / compression.bytesPerSecond) * 1000;
    const downtimeMs = Math.max(byWire, byEngine);
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
      throttle: this.#throttle,
      passes: this.#passes.map(({ atMs, pages }) => ({ atMs, pages: Math.round(pages) })),
      dirtyBytesPerSecond: Math.round(this.#rates.dirty),
      sentBytesPerSecond: Math.round(this.#rates.sent),
    };
  }
}
