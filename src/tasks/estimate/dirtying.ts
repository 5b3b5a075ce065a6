/**
 * How a guest dirties its memory: how many different pages it writes within a time.
 *
 * As long as a guest keeps doing the same, this curve rises from 0 and flattens, because pages that are written again do not
 * count again. So one point on it, C pages in T seconds, bounds the rest:
 *
 *     pages |                 .· most: always new pages            C * max(1, t / T)
 *         C |- - - - - - .·*·------------  least: these pages only  C * min(1, t / T)
 *           |  ......·⋅⁚· ·  likely        W * (1 - exp(-t / T))
 *           | :    .·     :
 *           +-------------+-------------- t
 *                         T
 *
 * Below T the bounds swap: `most` writes all of C at once, `least` one page after the other.
 */

/** Which assumption a model of dirtying makes: the lowest, the likeliest or the highest rate, or the one that was given. */
export type DirtyingName = 'least' | 'likely' | 'most' | 'given';

/** How a guest dirties its memory. */
export interface Dirtying {
  name: DirtyingName;
  /** The number of pages that the guest writes to. */
  workingSet: number;
  /** Pages that are written at least once within a number of seconds of the guest's time. */
  dirtied(seconds: number): number;
}

/** The curves through `pages` in `seconds`, in a memory of `total` pages. */
export function dirtyingThrough(pages: number, seconds: number, total: number): Dirtying[] {
  const likelySet = Math.min(total, pages / (1 - Math.exp(-1)));
  // The rate is below once per interval if memory is too small for that.
  const rate = pages === 0 ? 0 : pages >= total ? Number.POSITIVE_INFINITY : -Math.log1p(-pages / likelySet) / seconds;
  return [
    { name: 'least', workingSet: pages, dirtied: (t) => pages * Math.min(1, t / seconds) },
    { name: 'likely', workingSet: likelySet, dirtied: (t) => saturating(likelySet, rate, t) },
    {
      name: 'most',
      workingSet: total,
      dirtied: (t) => (t <= 0 ? 0 : Math.min(total, pages * Math.max(1, t / seconds))),
    },
  ];
}

/**
 * A guest that writes at random to the pages of a working set, at first `pagesPerSecond` different ones. Without a working
 * set, each write goes to another page, up to `total`.
 */
export function dirtyingAt(pagesPerSecond: number, workingSet: number | undefined, total: number): Dirtying {
  if (workingSet === undefined) {
    return { name: 'given', workingSet: total, dirtied: (t) => Math.min(total, pagesPerSecond * t) };
  }
  const rate = workingSet === 0 ? 0 : pagesPerSecond / workingSet;
  return { name: 'given', workingSet, dirtied: (t) => saturating(workingSet, rate, t) };
}

/**
 * The working set of a guest that writes at first `pagesPerSecond` different pages, and `pages` in `seconds`. At least
 * `pages`. Undefined if `pages` is as many as the rate alone makes, which means that the set has no limit.
 */
export function findWorkingSet(pagesPerSecond: number, pages: number, seconds: number): number | undefined {
  if (pages === 0) return 0;
  if (pagesPerSecond * seconds <= pages) return undefined;
  let low = pages;
  let high = pages * 2;
  const reached = (set: number) => saturating(set, pagesPerSecond / set, seconds);
  while (reached(high) < pages && high < pages * 2 ** 20) high *= 2;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (reached(middle) < pages) low = middle;
    else high = middle;
  }
  return high;
}

/** Pages that were written at least once after `t` seconds, if each page of a set is written `rate` times a second at random. */
function saturating(set: number, rate: number, seconds: number): number {
  return seconds <= 0 ? 0 : -set * Math.expm1(-rate * seconds);
}
