/**
 * Repeatable random numbers: the same seed gives the same sample. The generator is mulberry32, which is good enough to choose
 * pages, and for nothing else.
 */

/** Returns numbers from 0 up to, but not including, 1. */
export type Random = () => number;

/** Makes a generator. */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
