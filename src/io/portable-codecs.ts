/**
 * Page codecs for every platform: fflate, and zstd in WebAssembly. Each is loaded when it is first needed.
 */
import type { Unzlib } from 'fflate';
import {
  CodecError,
  overflow,
  type PageCodecs,
  type PageDecoder,
  type PageFormat,
  type StreamFormat,
} from './page-codec.ts';
import type { ZstdWasm } from './zstd-wasm.ts';

/** Bytes fed to fflate at a time: they cannot become more than a thousand times as many before that is noticed. */
const feedBytes = 16 * 1024;

export class PortableCodecs implements PageCodecs {
  #zstd: Promise<ZstdWasm> | undefined;

  async openDecoder(format: StreamFormat): Promise<PageDecoder> {
    if (format === 'zstd') {
      this.#zstd ??= import('./zstd-wasm.ts').then(({ ZstdWasm }) => ZstdWasm.load());
      return (await this.#zstd).openDecoder();
    }
    const { Unzlib } = await import('fflate');
    return new FflateDecoder(new Unzlib());
  }

  async decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): Promise<void> {
    const { Inflate, Unzlib } = await import('fflate');
    const stream = format === 'zlib' ? new Unzlib() : new Inflate();
    const written = feed(stream, input, target, true);
    if (written !== target.length) throw new CodecError(`expected ${target.length} bytes to come out, got ${written}`);
    // fflate passes over the checksum, which also shows whether the stream ends where its bytes do.
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

/** A zlib stream in fflate, which hands out all that it can after each piece. */
class FflateDecoder implements PageDecoder {
  readonly #stream: Unzlib;

  constructor(stream: Unzlib) {
    this.#stream = stream;
  }

  decode(input: Uint8Array, target: Uint8Array): number {
    return feed(this.#stream, input, target, false);
  }

  close(): void {}
}

type Stream = Pick<Unzlib, 'push' | 'ondata'>;

function feed(stream: Stream, input: Uint8Array, target: Uint8Array, isWhole: boolean): number {
  let written = 0;
  let excess = false;
  stream.ondata = (chunk) => {
    if (chunk.length > target.length - written) excess = true;
    else target.set(chunk, written);
    written += chunk.length;
  };
  for (let at = 0; at < input.length; at += feedBytes) {
    try {
      stream.push(input.slice(at, at + feedBytes), isWhole && at + feedBytes >= input.length);
    } catch (error) {
      throw new CodecError(`deflate data that does not decode: ${(error as Error).message}`);
    }
    if (excess) throw overflow(target.length);
  }
  return written;
}
