/**
 * How QEMU holds a vCPU to a dirty rate: it sleeps whenever its dirty ring is full, for a time that is adjusted after each
 * period of measuring. Pure numbers, without a clock. Rates are in MiB/s, which QEMU calls MB/s.
 */

/** A rate this close to its quota is left alone. */
const toleratedRate = 25;
/** Differences of more than this are corrected in proportion, in per cent. */
const linearPercent = 50;
/** A sleep is at most this many times as long as it takes to fill the ring. */
const mostSleeps = 99;
const usPerSecond = 1_000_000;

/** The time in µs in which a ring of so many MiB is full. 0 if nothing is written. */
export function ringFullTime(ringMiB: number, rate: number): number {
  return rate === 0 ? 0 : Math.floor((ringMiB * usPerSecond) / rate);
}

/** The next sleep in µs of a vCPU that slept `sleep`. `full` is the time in which the fastest vCPU ever fills its ring. */
export function nextSleep(sleep: number, quota: number, rate: number, full: number): number {
  const difference = Math.abs(quota - rate);
  if (difference <= toleratedRate) return sleep;
  if (rate === 0) return 0;
  const isTooFast = quota < rate;
  const share = Math.floor((difference * 100) / Math.max(quota, rate));
  // A quota of 0 would need a sleep without end: the most is as good.
  const linear = share >= 100 ? full * mostSleeps : Math.floor((full * share) / (100 - share));
  const step = share > linearPercent ? linear : Math.floor(full / 10);
  return Math.min(full * mostSleeps, Math.max(0, isTooFast ? sleep + step : sleep - step));
}

/** The bytes/s that a vCPU writes if it sleeps for `us` µs whenever it has filled a ring of `bytes` at its own `rate`. */
export function rateWithSleep(bytes: number, rate: number, us: number): number {
  return rate === 0 ? 0 : bytes / (bytes / rate + us / usPerSecond);
}
