/**
 * Compressing pages and decompressing them, behind one interface: which library does it is chosen when a file is opened or
 * written. All of them give the same pages. Members: portable-codecs.ts, and node/codecs.ts.
 */

/** How a multifd channel compresses: one stream for all of its packets, flushed at the end of each, or a zstd frame for each. */
export type StreamFormat = 'zlib' | 'zstd';
/** How a page by itself is compressed: a complete zlib stream, or deflate data without a header. */
export type PageFormat = 'zlib' | 'deflate';

/** The decompressor of one channel. It keeps its state from packet to packet. */
export interface PageDecoder {
  /**
   * Takes the next bytes of the channel's compressed data, and puts all that comes out of them to the beginning of
   * `target`. Returns how many bytes that were. `input` and `target` are views that stay as they are until then.
   * @throws CodecError for data that does not decode, or gives more than fits.
   */
  decode(input: Uint8Array, target: Uint8Array): Promise<number> | number;
  /** Lets go of its memory. */
  close(): void;
}

/** The compressor of one channel. It may keep state from packet to packet. */
export interface PageEncoder {
  /**
   * Compresses the pages of a packet, and puts the payload to the beginning of `target`: a reader gets all of the pages
   * from it, if it has had those before. Returns how many bytes that are. `input` and `target` are views that stay as
   * they are until then.
   * @throws CodecError for a payload that does not fit.
   */
  encode(input: Uint8Array, target: Uint8Array): Promise<number> | number;
  /** Lets go of its memory. */
  close(): void;
}

/** The levels that QEMU has parameters for (multifd-zlib-level, multifd-zstd-level). 0 of zstd means its default, 3. */
export const levelsOf: Readonly<Record<StreamFormat, { least: number; most: number }>> = {
  zlib: { least: 0, most: 9 },
  zstd: { least: 0, most: 20 },
};

/** A set of engines. */
export interface PageCodecs {
  /** A compressor for one channel, of a level within {@link levelsOf}. Libraries are loaded when they are first needed. */
  openEncoder(format: StreamFormat, level: number): Promise<PageEncoder>;
  /** A decompressor for one channel. Libraries are loaded when they are first needed. */
  openDecoder(format: StreamFormat): Promise<PageDecoder>;
  /**
   * Decompresses a page that is compressed by itself into `target`, which it has to fill exactly.
   * @throws CodecError for anything else than one whole stream of that length.
   */
  decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): Promise<void> | void;
}

/** Compressed data is bad, or has no room. */
export class CodecError extends Error {
  override readonly name = 'CodecError';
}

/** More came out than fits. */
export function overflow(length: number): CodecError {
  return new CodecError(`expected ${length} bytes of output, got more`);
}
