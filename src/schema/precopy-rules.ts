/**
 * The rules by which QEMU's source decides in precopy: windows of bandwidth, the threshold, periods of dirtying, and
 * auto-converge. Pure numbers, without a clock. The migration engine and `estimate` both take them from here.
 *
 *     windows   |100 ms|100 ms|...           bandwidth and threshold at the end of each
 *     syncs     1 ---------- 2 ----- 3 ---   when less is left than the threshold
 *     periods   |-- more than 1 s ---|       the rate of dirtying, and throttling, at the first sync after one
 */

/** A window of the bandwidth, in ms. */
export const windowMs = 100;
/** A part of the ram section ends after this time, in ms. */
export const partMs = 50;
/** A period of dirtying is longer than this, in ms. */
export const periodMs = 1000;
/** With auto-converge, QEMU 10.0 syncs at least this often from the second sync on, in ms. */
export const forcedSyncMs = 5000;
/** A window in which no more than this was sent says nothing about the expected downtime, in bytes. */
const minTellingBytes = 10_000;

/** Bytes that may leave in a window. 0: no limit, for a rate below 10, too. */
export function windowBudget(rate: number): number {
  return Math.floor(rate / (1000 / windowMs));
}

/** What a window had. */
export interface Window {
  ms: number;
  /** Bytes that left. */
  bytes: number;
}

/** The parameters that a window depends on. */
export interface WindowParameters {
  /** In ms. */
  'downtime-limit': number;
  /** In bytes/s; 0: the bandwidth is measured. */
  'avail-switchover-bandwidth': number;
}

/** What follows from a window. */
export interface WindowResult {
  /** The guest may be stopped when less than this is left, in bytes. */
  threshold: number;
  /** In ms. Undefined: it stays as it was. */
  'expected-downtime': number | undefined;
}

/**
 * The end of a window. `dirtyPagesRate` is that of the latest period, and `dirtyBytesLastSync` is what was left right after
 * the latest sync.
 */
export function endWindow(
  { ms, bytes }: Window,
  { 'downtime-limit': downtimeLimit, 'avail-switchover-bandwidth': available }: WindowParameters,
  { dirtyPagesRate, dirtyBytesLastSync }: { dirtyPagesRate: number; dirtyBytesLastSync: number },
): WindowResult {
  // Bytes per ms. What is set is divided as an integer, what is measured is not.
  const bandwidth = available > 0 ? Math.floor(available / 1000) : bytes / ms;
  const isTelling = dirtyPagesRate !== 0 && bytes > minTellingBytes;
  return {
    threshold: Math.floor(bandwidth * downtimeLimit),
    'expected-downtime': isTelling ? Math.floor(dirtyBytesLastSync / bandwidth) : undefined,
  };
}

/** The parameters of auto-converge, in per cent. */
export interface ThrottleParameters {
  'throttle-trigger-threshold': number;
  'cpu-throttle-initial': number;
  'cpu-throttle-increment': number;
  'cpu-throttle-tailslow': boolean;
  'max-cpu-throttle': number;
}

export const throttleDefaults: ThrottleParameters = {
  'throttle-trigger-threshold': 50,
  'cpu-throttle-initial': 20,
  'cpu-throttle-increment': 10,
  'cpu-throttle-tailslow': false,
  'max-cpu-throttle': 99,
};

/** A throttle step follows this many periods with too much dirtying. They need not follow each other. */
const highPeriods = 2;

/** Notices that the guest dirties too much: for auto-converge, and for dirty-limit. */
export class DirtyTrigger {
  #highCount = 0;

  /** A period ended in which this many bytes were dirtied and sent. Returns whether something must be done. */
  endPeriod(
    dirtied: number,
    sent: number,
    parameters: Pick<ThrottleParameters, 'throttle-trigger-threshold'>,
  ): boolean {
    if (!(dirtied > dirtyLimit(sent, parameters)) || ++this.#highCount < highPeriods) return false;
    this.#highCount = 0;
    return true;
  }
}

/** The bytes that may be dirtied while this many are sent. */
function dirtyLimit(sent: number, parameters: Pick<ThrottleParameters, 'throttle-trigger-threshold'>): number {
  return Math.floor((sent * parameters['throttle-trigger-threshold']) / 100);
}

/** Decides at the end of each period whether the guest is slowed down. */
export class AutoConverge {
  /** By how much the guest is slowed, in per cent. 0: not at all. */
  percentage = 0;
  readonly #trigger = new DirtyTrigger();

  /** A period ended in which this many bytes were dirtied and sent. Returns whether the percentage must be applied. */
  endPeriod(dirtied: number, sent: number, parameters: ThrottleParameters): boolean {
    if (!this.#trigger.endPeriod(dirtied, sent, parameters)) return false;
    this.percentage = nextThrottle(this.percentage, dirtyLimit(sent, parameters) / dirtied, parameters);
    return true;
  }
}

/** The next percentage after `now`. `share` is how much of the dirtying would have been all right. */
function nextThrottle(now: number, share: number, parameters: ThrottleParameters): number {
  let next = parameters['cpu-throttle-initial'];
  if (now > 0) {
    let increment = parameters['cpu-throttle-increment'];
    if (parameters['cpu-throttle-tailslow']) {
      const speed = 100 - now;
      increment = Math.min(speed - Math.floor(speed * share), increment);
    }
    next = Math.min(now + increment, parameters['max-cpu-throttle']);
  }
  return Math.min(99, Math.max(1, next));
}
