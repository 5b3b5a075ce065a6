/**
 * What a page server counts: requests for pages, how long each waited, and how much of RAM is there.
 *
 *     latency   |<15 µs|<22 µs|<31 µs|<44 µs| …    buckets that grow by a half power of two, from 10 µs to 10 s
 */
import type { Clock } from '../io/clock.ts';
import type { PageRequest } from './page-requests.ts';
import type { PageRange } from './push-order.ts';

/** One bucket of a histogram: how many requests took less than `below` ms, and no less than the bucket before. */
export interface LatencyBucket {
  below: number;
  count: number;
}

/** What a page server has done so far. */
export interface ServeStatistics {
  /** Requests for pages. */
  faults: number;
  /** How long requests waited here, in ms: from when they came to when their pages had left. */
  latency: { p50: number; p99: number; max: number; histogram: LatencyBucket[] };
  /** Bytes of pages that were sent, and what part of these was asked for. */
  sentBytes: number;
  requestedBytes: number;
  /** Bytes of pages with data that are still to be sent. Undefined until they are counted. */
  remainingBytes: number | undefined;
  /** The share of the pages with data that is at the target, from 0 to 1. Undefined until they are counted. */
  resident: number | undefined;
  /** When all pages will have been sent, in ms from now, if it goes on as it has. Undefined until that is known. */
  expectedEndMs: number | undefined;
}

/** The least bucket ends here, in ms. */
const leastMs = 0.01;
const buckets = 41;
const step = Math.SQRT2;
/** The most requests whose order is kept. */
const mostRecorded = 1_000_000;

/** Who counts. */
export interface ServeCounts {
  sentPages: () => number;
  pageSize: number;
  clock: Clock;
}

export class ServeMeter {
  readonly #counts: ServeCounts;
  readonly #histogram = new Uint32Array(buckets);
  #faults = 0;
  #served = 0;
  #max = 0;
  #requestedPages = 0;
  /** Pages with data, once they are counted. */
  dataPages: number | undefined;
  #begun: number | undefined;
  /** The requests in their order, each page once. */
  readonly #recorded: PageRange[] = [];
  readonly #seen = new Map<number, Set<number>>();

  constructor(counts: ServeCounts) {
    this.#counts = counts;
  }

  /** The guest runs: from here on the time counts. */
  begin(): void {
    this.#begun ??= this.#counts.clock.now();
  }

  /** A request came. */
  asked({ block, first, end }: PageRequest): void {
    this.#faults++;
    this.#requestedPages += end - first;
    if (this.#recorded.length === mostRecorded) return;
    const seen = this.#seen.get(block.index) ?? new Set();
    this.#seen.set(block.index, seen);
    if (seen.has(first)) return;
    seen.add(first);
    this.#recorded.push({ block, first, end });
  }

  /** A request was answered. */
  served({ at = 0 }: PageRequest): void {
    const ms = this.#counts.clock.now() - at;
    const bucket = ms <= leastMs ? 0 : Math.ceil(Math.log(ms / leastMs) / Math.log(step));
    const index = Math.min(bucket, buckets - 1);
    this.#histogram[index] = (this.#histogram[index] as number) + 1;
    this.#served++;
    this.#max = Math.max(this.#max, ms);
  }

  /** What was asked for, in that order, each page once. */
  get recorded(): readonly PageRange[] {
    return this.#recorded;
  }

  now(): ServeStatistics {
    const { sentPages, pageSize, clock } = this.#counts;
    const sent = sentPages();
    const left = this.dataPages === undefined ? undefined : Math.max(0, this.dataPages - sent);
    const elapsed = this.#begun === undefined ? 0 : clock.now() - this.#begun;
    return {
      faults: this.#faults,
      latency: {
        ...{ p50: this.#quantile(0.5), p99: this.#quantile(0.99), max: round(this.#max) },
        histogram: this.#list(),
      },
      sentBytes: sent * pageSize,
      requestedBytes: this.#requestedPages * pageSize,
      remainingBytes: left === undefined ? undefined : left * pageSize,
      resident: left === undefined ? undefined : this.#share(left),
      expectedEndMs:
        left === undefined || sent === 0 || elapsed === 0 ? undefined : Math.round((left * elapsed) / sent),
    };
  }

  #share(left: number): number {
    const pages = this.dataPages ?? 0;
    return pages === 0 ? 1 : (pages - left) / pages;
  }

  #list(): LatencyBucket[] {
    const list: LatencyBucket[] = [];
    for (const [i, count] of this.#histogram.entries()) if (count > 0) list.push({ below: boundOf(i), count });
    return list;
  }

  /** The upper end of the bucket in which this quantile lies, but not more than the greatest value. */
  #quantile(share: number): number {
    let left = Math.ceil(this.#served * share);
    for (const [i, count] of this.#histogram.entries()) {
      left -= count;
      if (count > 0 && left <= 0) return round(Math.min(boundOf(i), this.#max));
    }
    return 0;
  }
}

const round = (ms: number): number => Number(ms.toPrecision(3));
const boundOf = (bucket: number): number => round(leastMs * step ** bucket);
