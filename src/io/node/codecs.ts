/**
 * Page codecs of Node itself: zlib everywhere, zstd where Node has it (22.15 and later). What it lacks, the portable
 * ones do.
 */
import zlib, { type Inflate, inflateRawSync, inflateSync } from 'node:zlib';
import {
  CodecError,
  overflow,
  type PageCodecs,
  type PageDecoder,
  type PageFormat,
  type StreamFormat,
} from '../page-codec.ts';
import { PortableCodecs } from '../portable-codecs.ts';
import { ZstdFrames } from '../zstd-frames.ts';

/** Bytes that come out at a time, and room that each channel takes. Node's default, 16 KiB, halves the speed. */
const chunkSize = 128 * 1024;

type Transform = Pick<Inflate, 'write' | 'on' | 'off' | 'once' | 'destroy'>;

/** Not in the types of the oldest Node that this runs on. */
const makeZstd = (zlib as unknown as { createZstdDecompress?: (options: { chunkSize: number }) => Transform })
  .createZstdDecompress;

export class NodeCodecs implements PageCodecs {
  readonly #portable = new PortableCodecs();

  async openDecoder(format: StreamFormat): Promise<PageDecoder> {
    if (format === 'zlib') return new StreamDecoder(zlib.createInflate({ chunkSize }));
    if (makeZstd === undefined) return this.#portable.openDecoder(format);
    return new FrameDecoder(makeZstd);
  }

  decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): void {
    const inflate = format === 'zlib' ? inflateSync : inflateRawSync;
    let result: { buffer: Uint8Array; engine: { bytesWritten: number } };
    try {
      // With `info`, the types of Node miss the shape. What the engine wrote is what it took in.
      result = inflate(input, { maxOutputLength: target.length, info: true }) as unknown as typeof result;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw overflow(target.length);
      throw new CodecError(`deflate data that does not decode: ${(error as Error).message}`);
    }
    if (result.buffer.length !== target.length) {
      throw new CodecError(`expected ${target.length} bytes to come out, got ${result.buffer.length}`);
    }
    if (result.engine.bytesWritten !== input.length) {
      throw new CodecError(`expected the data to end after ${input.length} bytes, got ${result.engine.bytesWritten}`);
    }
    target.set(result.buffer);
  }
}

/** One of Node's transforms, never ended: a write is over when all that it gives has come. */
class StreamDecoder implements PageDecoder {
  readonly #stream: Transform;
  #target: Uint8Array = new Uint8Array();
  #written = 0;
  #fail: ((error: Error) => void) | undefined;

  constructor(stream: Transform) {
    this.#stream = stream;
    stream.on('data', (chunk: Uint8Array) => {
      if (chunk.length > this.#target.length - this.#written) {
        this.close();
        this.#fail?.(overflow(this.#target.length));
        return;
      }
      this.#target.set(chunk, this.#written);
      this.#written += chunk.length;
    });
    stream.on('error', (error: Error) => this.#fail?.(new CodecError(`data that does not decode: ${error.message}`)));
  }

  decode(input: Uint8Array, target: Uint8Array): Promise<number> {
    this.#target = target;
    this.#written = 0;
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#stream.write(input, (error) => {
        if (error) reject(new CodecError(`data that does not decode: ${error.message}`));
        else resolve(this.#written);
      });
    });
  }

  close(): void {
    this.#stream.destroy();
  }
}

/** zstd: a transform for each frame, since Node's stops at the end of one. */
class FrameDecoder implements PageDecoder {
  readonly #make: NonNullable<typeof makeZstd>;
  readonly #frames = new ZstdFrames();
  #frame: StreamDecoder | undefined;

  constructor(make: NonNullable<typeof makeZstd>) {
    this.#make = make;
  }

  async decode(input: Uint8Array, target: Uint8Array): Promise<number> {
    let written = 0;
    for (let from = 0; from < input.length; ) {
      let end = from;
      let isEnd = false;
      while (end < input.length && !isEnd) {
        const next = this.#frames.next(input, end);
        end = next.end;
        isEnd = next.piece === 'frame';
      }
      this.#frame ??= new StreamDecoder(this.#make({ chunkSize }));
      written += await this.#frame.decode(input.subarray(from, end), target.subarray(written));
      if (isEnd) this.close();
      from = end;
    }
    return written;
  }

  close(): void {
    this.#frame?.close();
    this.#frame = undefined;
  }
}
