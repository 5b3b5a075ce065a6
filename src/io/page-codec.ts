/**
 * Compression and decompression of pages behind one interface. The library is chosen when a file is opened or written.
 * All implementations give the same pages: portable-codecs.ts and node/codecs.ts.
 */

/**
 * How a multifd channel is compressed: one stream for all packets, flushed at the end of each, or one zstd frame per
 * packet.
 */
export type StreamFormat = 'zlib' | 'zstd';
/** How a single page is compressed: a complete zlib stream, or deflate data without a header. */
export type PageFormat = 'zlib' | 'deflate';

/** The decompressor of one channel. It keeps its state from packet to packet. */
export interface PageDecoder {
  /**
   * Takes the next bytes of the channel's compressed data, and writes all resulting output to the beginning of
   * `target`. Returns the length of the output. `input` and `target` must not change until then.
   * @throws CodecError for data that does not decode, or whose output does not fit.
   */
  decode(input: Uint8Array, target: Uint8Array): Promise<number> | number;
  /** Frees its memory. */
  close(): void;
}

/** The compressor of one channel. It may keep state from packet to packet. */
export interface PageEncoder {
  /**
   * Compresses the pages of a packet, and writes the payload to the beginning of `target`. A reader that had all
   * earlier payloads can decompress it completely. Returns the length of the payload. `input` and `target` must not
   * change until then.
   * @throws CodecError for a payload that does not fit.
   */
  encode(input: Uint8Array, target: Uint8Array): Promise<number> | number;
  /** Frees its memory. */
  close(): void;
}

/** The levels of QEMU's parameters multifd-zlib-level and multifd-zstd-level. zstd's 0 means its default, 3. */
export const levelsOf: Readonly<Record<StreamFormat, { least: number; most: number }>> = {
  zlib: { least: 0, most: 9 },
  zstd: { least: 0, most: 20 },
};

/** A set of engines. */
export interface PageCodecs {
  /**
   * Opens a compressor for one channel, with a level within {@link levelsOf}. Libraries are loaded when they are first
   * needed.
   */
  openEncoder(format: StreamFormat, level: number): Promise<PageEncoder>;
  /** Opens a decompressor for one channel. Libraries are loaded when they are first needed. */
  openDecoder(format: StreamFormat): Promise<PageDecoder>;
  /**
   * Decompresses a single page into `target`, which the page must fill exactly.
   * @throws CodecError for anything but one whole stream of that length.
   */
  decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): Promise<void> | void;
}

/** Compressed data is bad, or does not fit. */
export class CodecError extends Error {
  override readonly name = 'CodecError';
}

/** The error for output that does not fit. */
export function overflow(length: number): CodecError {
  return new CodecError(`expected ${length} bytes of output, got more`);
}
