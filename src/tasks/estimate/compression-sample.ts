/**
 * How well multifd's compressions work on a VM's pages, measured on a sample. Each group of pages is compressed and flushed as
 * QEMU does with a packet, all in one stream (docs/formats/multifd.md, "Compression"). The speed is that of one thread of
 * this machine's engine.
 */
import type { Abortable } from '../../io/abort.ts';
import type { PageCodecs, PageEncoder, StreamFormat } from '../../io/page-codec.ts';
import type { PageGroup } from './page-sample.ts';

/** A compression method and level. */
export interface CompressionChoice {
  format: StreamFormat;
  level: number;
}

/** How well and how fast a sample was compressed. */
export interface CompressionFigure extends CompressionChoice {
  /** Bytes of pages for each byte of payload. */
  ratio: number;
  /** Standard error of the ratio, if the sample has more than one group; 0 if it has all of them. */
  ratioError: number | undefined;
  /** Bytes of pages that one thread compresses in a second; the best of several rounds for a small sample. */
  bytesPerSecond: number;
}

/** Extra space, since the payload of incompressible pages is longer than the pages. */
const payloadRoom = 1 << 20;
/** The speed is measured on at least this many bytes and for at least this long, in at most `maxRounds` rounds. */
const minBytes = 1 << 20;
const minMs = 50;
const maxRounds = 64;

/** QEMU's default level of both, a middle level and a high one. */
export const usualLevels: readonly CompressionChoice[] = [
  { format: 'zlib', level: 1 },
  { format: 'zlib', level: 6 },
  { format: 'zlib', level: 9 },
  { format: 'zstd', level: 1 },
  { format: 'zstd', level: 3 },
  { format: 'zstd', level: 9 },
];

export interface CompressionOptions extends Abortable {
  codecs: PageCodecs;
  /** The time in ms; only differences count. */
  clock: () => number;
  /** The number of groups that the sample was taken from. */
  population: number;
}

/** Compresses a sample, which must not be empty, with each choice. */
export async function measureCompression(
  groups: readonly PageGroup[],
  choices: readonly CompressionChoice[],
  options: CompressionOptions,
): Promise<CompressionFigure[]> {
  const figures: CompressionFigure[] = [];
  for (const choice of choices) figures.push(await measure(groups, choice, options));
  return figures;
}

async function measure(
  groups: readonly PageGroup[],
  choice: CompressionChoice,
  { codecs, clock, population, signal }: CompressionOptions,
): Promise<CompressionFigure> {
  const room = new Uint8Array(payloadRoom);
  let sizes: Size[] = [];
  let ms = 0;
  let bytes = 0;
  let least = Number.POSITIVE_INFINITY;
  // A small sample is compressed repeatedly. The first round does not count, because it loads and compiles code.
  const isEnough = () => bytes >= minBytes && ms >= minMs;
  for (let round = 0; round < 2 || (!isEnough() && round <= maxRounds); round++) {
    signal?.throwIfAborted();
    const encoder = await codecs.openEncoder(choice.format, choice.level);
    try {
      const begin = clock();
      sizes = await compress(round === 0 ? groups.slice(0, 1) : groups, encoder, room, signal);
      if (round === 0) continue;
      const took = clock() - begin;
      ms += took;
      least = Math.min(least, took);
      bytes += sum(sizes, ({ from }) => from);
    } finally {
      encoder.close();
    }
  }
  const sampled = sum(sizes, ({ from }) => from);
  const ratio = sampled / sum(sizes, ({ to }) => to);
  return {
    ...choice,
    ratio,
    ratioError: errorOf(sizes, ratio, population),
    bytesPerSecond: (sampled / Math.max(least, 1e-3)) * 1000,
  };
}

/** Bytes of pages, and bytes of their payload. */
interface Size {
  from: number;
  to: number;
}

async function compress(
  groups: readonly PageGroup[],
  encoder: PageEncoder,
  room: Uint8Array,
  signal: Abortable['signal'],
): Promise<Size[]> {
  const sizes: Size[] = [];
  for (const { bytes } of groups) {
    signal?.throwIfAborted();
    sizes.push({ from: bytes.length, to: await encoder.encode(bytes, room) });
  }
  return sizes;
}

const sum = (sizes: readonly Size[], of: (size: Size) => number) => sizes.reduce((total, size) => total + of(size), 0);

/** Standard error of a ratio of sums, for a sample without repetition. */
function errorOf(sizes: readonly Size[], ratio: number, population: number): number | undefined {
  const n = sizes.length;
  if (n >= population) return 0;
  if (n < 2) return undefined;
  const squares = sum(sizes, ({ from, to }) => (from - ratio * to) ** 2);
  const mean = sum(sizes, ({ to }) => to) / n;
  return (Math.sqrt(squares / (n * (n - 1))) / mean) * Math.sqrt(1 - n / population);
}

/**
 * The bandwidth in bytes/s below which compressed pages are sent faster than plain ones: what `channels` threads compress in a
 * second. Above it, the engine is slower than the wire. 0 if pages do not get smaller.
 */
export function breakEven({ ratio, bytesPerSecond }: CompressionFigure, channels: number): number {
  return ratio > 1 ? bytesPerSecond * channels : 0;
}

/** How many times faster compressed pages are sent at a bandwidth; below 1 they are slower. */
export function gainOf({ ratio, bytesPerSecond }: CompressionFigure, channels: number, bandwidth: number): number {
  return Math.min(ratio, (bytesPerSecond * channels) / bandwidth);
}
