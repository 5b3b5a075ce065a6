/**
 * What multifd's compressions would make of a VM's pages: measured on a sample, each group of pages compressed and flushed
 * as QEMU does with a packet, all of them through one stream (docs/formats/multifd.md, "Compression"). How fast, is how
 * fast this machine's engine is, one thread of it.
 */
import type { PageCodecs, StreamFormat } from '../io/page-codec.ts';
import type { PageGroup } from './page-sample.ts';

export interface CompressionWish {
  format: StreamFormat;
  level: number;
}

export interface CompressionFigure extends CompressionWish {
  /** Bytes of pages for each byte of payload. */
  ratio: number;
  /** Standard error of the ratio, since it comes from a sample; 0 if the sample is all there is. */
  ratioError: number;
  /** Bytes of pages that one thread compresses in a second. */
  bytesPerSecond: number;
}

/** Payload may be longer than the pages, if they do not compress. */
const payloadRoom = 1 << 20;

/** QEMU's default level of both, a middle and a high one. */
export const usualLevels: readonly CompressionWish[] = [
  { format: 'zlib', level: 1 },
  { format: 'zlib', level: 6 },
  { format: 'zlib', level: 9 },
  { format: 'zstd', level: 1 },
  { format: 'zstd', level: 3 },
  { format: 'zstd', level: 9 },
];

export interface CompressionOptions {
  codecs: PageCodecs;
  /** Says the time in ms; only differences count. */
  clock: () => number;
  /** Groups that the sample was taken from. */
  population: number;
}

/** Compresses a sample with each; there must be a page in it. */
export async function measureCompression(
  groups: readonly PageGroup[],
  wishes: readonly CompressionWish[],
  options: CompressionOptions,
): Promise<CompressionFigure[]> {
  const figures: CompressionFigure[] = [];
  for (const wish of wishes) figures.push(await measure(groups, wish, options));
  return figures;
}

async function measure(
  groups: readonly PageGroup[],
  { format, level }: CompressionWish,
  { codecs, clock, population }: CompressionOptions,
): Promise<CompressionFigure> {
  const room = new Uint8Array(payloadRoom);
  // What is loaded and compiled when it is first used does not count.
  const first = await codecs.openEncoder(format, level);
  for (const { bytes } of groups.slice(0, 1)) await first.encode(bytes, room);
  first.close();
  const encoder = await codecs.openEncoder(format, level);
  try {
    const sizes: [from: number, to: number][] = [];
    const begin = clock();
    for (const { bytes } of groups) sizes.push([bytes.length, await encoder.encode(bytes, room)]);
    const seconds = Math.max(1e-6, (clock() - begin) / 1000);
    const from = sizes.reduce((sum, [length]) => sum + length, 0);
    const to = sizes.reduce((sum, [, length]) => sum + length, 0);
    const ratio = from / to;
    return { format, level, ratio, ratioError: errorOf(sizes, ratio, population), bytesPerSecond: from / seconds };
  } finally {
    encoder.close();
  }
}

/** Standard error of a ratio of sums, over a sample without repetition. */
function errorOf(sizes: readonly [number, number][], ratio: number, population: number): number {
  const n = sizes.length;
  if (n < 2 || n >= population) return 0;
  const squares = sizes.reduce((sum, [from, to]) => sum + (from - ratio * to) ** 2, 0);
  const mean = sizes.reduce((sum, [, to]) => sum + to, 0) / n;
  return (Math.sqrt(squares / (n * (n - 1))) / mean) * Math.sqrt(1 - n / population);
}

/**
 * The bandwidth in bytes/s below which compressing sends pages faster than sending them as they are, with `channels`
 * threads: what they compress in a second. Above, the engine is slower than the wire. 0: never, since nothing gets smaller.
 */
export function breakEven({ ratio, bytesPerSecond }: CompressionFigure, channels: number): number {
  return ratio > 1 ? bytesPerSecond * channels : 0;
}

/** How many times faster pages go with it than without, at a bandwidth: below 1, slower. */
export function gainOf({ ratio, bytesPerSecond }: CompressionFigure, channels: number, bandwidth: number): number {
  return Math.min(ratio, (bytesPerSecond * channels) / bandwidth);
}
