/**
 * The order-0 entropy of a page: the lower bound for any coder that only knows byte frequencies. It shows what cannot be
 * compressed. Compressors that find repetitions do better.
 */
import type { PageGroup } from './page-sample.ts';

/** Bits per byte, in buckets of one bit: pages of 0 to 1 bit in the first, of 7 to 8 bits in the last. */
const buckets = 8;

/** The entropy of page content: the lower bound for any coder that only knows byte frequencies. */
export interface PageEntropy {
  /** Pages in the sample. */
  pages: number;
  /** Mean of the pages, in bytes per page. */
  meanBytes: number;
  /** Mean in bits per byte, 0 to 8. */
  meanBits: number;
  /** Pages by their bits per byte: 0 to 1, 1 to 2, ... 7 to 8. */
  histogram: number[];
}

/** Computes the entropy of all pages of a sample. */
export function measureEntropy(groups: readonly PageGroup[]): PageEntropy {
  const histogram = new Array<number>(buckets).fill(0);
  let pages = 0;
  let bits = 0;
  let pageBytes = 0;
  for (const { bytes, pageSize } of groups) {
    for (let from = 0; from < bytes.length; from += pageSize) {
      const ofPage = entropyOf(bytes, from, pageSize);
      const bucket = Math.min(buckets - 1, Math.floor(ofPage));
      histogram[bucket] = (histogram[bucket] as number) + 1;
      bits += ofPage;
      pageBytes += pageSize;
      pages++;
    }
  }
  const meanBits = pages === 0 ? 0 : bits / pages;
  return { pages, meanBits, meanBytes: pages === 0 ? 0 : (meanBits * pageBytes) / pages / 8, histogram };
}

const counts = new Uint32Array(256);

/** Bits per byte, 0 to 8, of `length` bytes from `from` on. */
export function entropyOf(bytes: Uint8Array, from: number, length: number): number {
  counts.fill(0);
  const end = from + length;
  for (let i = from; i < end; i++) counts[bytes[i] as number]!++;
  let sum = 0;
  for (const count of counts) if (count > 0) sum += count * Math.log2(count);
  return Math.max(0, Math.log2(length) - sum / length);
}
