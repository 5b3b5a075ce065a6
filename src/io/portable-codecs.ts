/**
 * Page codecs for every platform: pako, which is zlib in JavaScript and refuses the same data, and zstd in WebAssembly.
 * Each is loaded when it is first needed.
 */
import type { Deflate, Inflate } from 'pako';
import {
  CodecError,
  overflow,
  type PageCodecs,
  type PageDecoder,
  type PageEncoder,
  type PageFormat,
  type StreamFormat,
} from './page-codec.ts';
import type { ZstdEncoderWasm } from './zstd-encoder.ts';
import type { ZstdWasm } from './zstd-wasm.ts';

/** Bytes of output at a time. */
const chunkSize = 128 * 1024;
/** Bytes of input at a time. Their output is at most a thousand times as long when an overflow is noticed. */
const feedBytes = 16 * 1024;
/** zlib's flush mode for all pending output. */
const syncFlush = 2;

export class PortableCodecs implements PageCodecs {
  #zstd: Promise<ZstdWasm> | undefined;
  #zstdEncoder: Promise<ZstdEncoderWasm> | undefined;

  async openEncoder(format: StreamFormat, level: number): Promise<PageEncoder> {
    if (format === 'zstd') {
      this.#zstdEncoder ??= import('./zstd-encoder.ts').then(({ ZstdEncoderWasm }) => ZstdEncoderWasm.load());
      return (await this.#zstdEncoder).openEncoder(level);
    }
    const { Deflate } = await import('./deflate.ts');
    return new ZlibEncoder(new Deflate({ level: level as DeflateLevel, chunkSize }));
  }

  async openDecoder(format: StreamFormat): Promise<PageDecoder> {
    if (format === 'zstd') {
      this.#zstd ??= import('./zstd-wasm.ts').then(({ ZstdWasm }) => ZstdWasm.load());
      return (await this.#zstd).openDecoder();
    }
    const { Inflate } = await import('./inflate.ts');
    return new ZlibDecoder(new Inflate({ chunkSize }));
  }

  async decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): Promise<void> {
    const { Inflate } = await import('./inflate.ts');
    const stream = new Inflate({ chunkSize: target.length, raw: format === 'deflate' });
    const written = feed(stream, input, target);
    if (!stream.ended || written !== target.length) {
      throw new CodecError(`expected ${target.length} bytes of output, got ${written}`);
    }
    // The stream ends with its bytes if the checksum is the last thing in it.
    if (
      format === 'zlib' &&
      adler32(target) !== new DataView(input.buffer, input.byteOffset).getUint32(input.length - 4)
    ) {
      throw new CodecError('expected the checksum of the data at its end');
    }
  }
}

/** The checksum of zlib streams (RFC 1950). */
function adler32(bytes: Uint8Array): number {
  let a = 1;
  let b = 0;
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

/** A zlib stream whose pending output is taken after each piece. */
class ZlibDecoder implements PageDecoder {
  readonly #stream: Inflate;

  constructor(stream: Inflate) {
    this.#stream = stream;
  }

  decode(input: Uint8Array, target: Uint8Array): number {
    return feed(this.#stream, input, target);
  }

  close(): void {}
}

type DeflateLevel = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

/** A zlib stream that is flushed after each packet, and never finished. */
class ZlibEncoder implements PageEncoder {
  readonly #stream: Deflate;

  constructor(stream: Deflate) {
    this.#stream = stream;
  }

  encode(input: Uint8Array, target: Uint8Array): number {
    let written = 0;
    this.#stream.onData = (chunk) => {
      if (chunk.length > target.length - written) throw overflow(target.length);
      target.set(chunk, written);
      written += chunk.length;
    };
    this.#stream.push(input, syncFlush);
    return written;
  }

  close(): void {}
}

function feed(stream: Inflate, input: Uint8Array, target: Uint8Array): number {
  let written = 0;
  stream.onData = (chunk) => {
    if (chunk.length > target.length - written) throw overflow(target.length);
    target.set(chunk, written);
    written += chunk.length;
  };
  for (let at = 0; at < input.length; at += feedBytes) {
    if (stream.ended) throw new CodecError(`expected the data to end with its stream, got more`);
    stream.push(input.subarray(at, at + feedBytes), syncFlush);
    if (stream.err !== 0) throw new CodecError(`cannot decode the deflate data: ${stream.msg}`);
  }
  return written;
}
