/**
 * How a guest dirties its memory, by several measurements of different lengths: C pages within T seconds each. For a guest that
 * keeps doing the same, the curve through them is concave, which bounds it between two points:
 *
 *     pages |                     .·⁚⁚·⁚ ⁚   most: on as it came, up to the next point
 *           |               .·*·⁚ ⁚
 *           |        . ·⁚  ⁚                 least: straight to the next point
 *           |   *·⁚  ⁚                       likely: between the two
 *           +---+-------------*------------ t
 */
import type { Dirtying } from './dirtying.ts';

/** A measurement. */
interface MeasuredPages {
  seconds: number;
  pages: number;
}

/** The curves through measurements, in a memory of `total` pages. One curve if nothing was written. */
export function dirtyingThroughAll(measured: readonly MeasuredPages[], total: number): Dirtying[] {
  const points = increasing(measured, total);
  if (points.every(({ pages }) => pages === 0)) {
    return [{ name: 'given', workingSet: 0, dirtied: () => 0 }];
  }
  const least = (t: number) => leastAt(points, t);
  const most = (t: number) => Math.min(total, mostAt(points, t));
  const [last, before] = [points.at(-1) as MeasuredPages, points.at(-2)];
  // A curve that is still rising has not shown the whole working set.
  const isFlat = before !== undefined && last.pages < before.pages * flatGrowth;
  const workingSet = isFlat ? last.pages : total;
  return [
    { name: 'least', workingSet: last.pages, dirtied: least },
    { name: 'likely', workingSet, dirtied: (t) => Math.min(workingSet, likelyAt(points, t)) },
    { name: 'most', workingSet: total, dirtied: most },
  ];
}

const flatGrowth = 1.2;

/** In the order of time. Noise may make a longer measurement find less. */
function increasing(measured: readonly MeasuredPages[], total: number): MeasuredPages[] {
  let most = 0;
  return [...measured]
    .sort((a, b) => a.seconds - b.seconds)
    .map(({ seconds, pages }) => {
      most = Math.max(most, Math.min(total, pages));
      return { seconds, pages: most };
    });
}

/** The points around a time. */
function around(points: readonly MeasuredPages[], t: number) {
  const next = points.findIndex(({ seconds }) => seconds >= t);
  const origin = { seconds: 0, pages: 0 };
  if (next < 0) return { before: points.at(-1) as MeasuredPages, earlier: points.at(-2) ?? origin, next: undefined };
  return { before: points[next - 1] ?? origin, earlier: points[next - 2] ?? origin, next: points[next] };
}

function leastAt(points: readonly MeasuredPages[], t: number): number {
  if (t <= 0) return 0;
  const { before, next } = around(points, t);
  if (next === undefined) return before.pages;
  const share = (t - before.seconds) / (next.seconds - before.seconds);
  return before.pages + share * (next.pages - before.pages);
}

function mostAt(points: readonly MeasuredPages[], t: number): number {
  if (t <= 0) return 0;
  const { before, earlier, next } = around(points, t);
  // Before the first point nothing bounds the curve but the point itself.
  if (before.seconds === 0) return (next as MeasuredPages).pages;
  const slope = (before.pages - earlier.pages) / (before.seconds - earlier.seconds);
  return Math.min(next?.pages ?? Number.POSITIVE_INFINITY, before.pages + slope * (t - before.seconds));
}

function likelyAt(points: readonly MeasuredPages[], t: number): number {
  const { before, next } = around(points, t);
  if (t <= 0 || (before.seconds > 0 && next !== undefined)) return (leastAt(points, t) + mostAt(points, t)) / 2;
  if (next === undefined) return mostAt(points, t);
  // As a set of pages that is written at random, each once in the time of the first point.
  return (next.pages * -Math.expm1(-t / next.seconds)) / -Math.expm1(-1);
}
