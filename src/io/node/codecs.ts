/**
 * Page codecs of Node itself: zlib everywhere, zstd where Node has it (22.15 and later). The portable codecs cover what
 * it lacks.
 */
import { availableParallelism } from 'node:os';
import zlib, { type Inflate, inflateRawSync, inflateSync } from 'node:zlib';
import {
  CodecError,
  overflow,
  type PageCodecs,
  type PageDecoder,
  type PageEncoder,
  type PageFormat,
  type StreamFormat,
} from '../page-codec.ts';
import { PortableCodecs } from '../portable-codecs.ts';
import { ZstdFrames } from '../zstd-frames.ts';
import { hasZstdThreads, ZstdThreads } from './zstd-threads.ts';

/** Bytes of output at a time, and the buffer that each channel takes. Node's default, 16 KiB, halves the speed. */
const chunkSize = 128 * 1024;
const { Z_SYNC_FLUSH } = zlib.constants;

type Transform = Pick<Inflate, 'write' | 'on' | 'off' | 'once' | 'destroy'>;

/** Missing from the types of the oldest Node that this supports. */
const {
  createZstdDecompress: makeZstd,
  createZstdCompress: makeZstdCompress,
  constants,
} = zlib as unknown as {
  createZstdDecompress?: (options: { chunkSize: number }) => Transform;
  createZstdCompress?: (options: { chunkSize: number; flush: number; params: Record<number, number> }) => Transform;
  constants: { ZSTD_e_flush: number; ZSTD_c_compressionLevel: number };
};

/** How Node's codecs work. */
export interface NodeCodecsOptions {
  /** Threads that compress zstd where Node has no encoder of its own. Default 0: the main thread does. */
  threads?: number;
}

/** Threads that a live migration compresses with: one per core. A writer has at most four packets under way. */
export const liveThreads = (): number => Math.max(2, Math.min(4, availableParallelism()));

export class NodeCodecs implements PageCodecs {
  readonly #portable = new PortableCodecs();
  readonly #threads: ZstdThreads | undefined;

  constructor({ threads = 0 }: NodeCodecsOptions = {}) {
    const isNeeded = threads > 0 && makeZstdCompress === undefined && hasZstdThreads();
    if (isNeeded) this.#threads = new ZstdThreads(threads);
  }

  async openDecoder(format: StreamFormat): Promise<PageDecoder> {
    if (format === 'zlib') return decoderOf(zlib.createInflate({ chunkSize }));
    if (makeZstd === undefined) return this.#portable.openDecoder(format);
    return new FrameDecoder(makeZstd);
  }

  async openEncoder(format: StreamFormat, level: number): Promise<PageEncoder> {
    if (format === 'zlib') return encoderOf(zlib.createDeflate({ level, chunkSize, flush: Z_SYNC_FLUSH }));
    if (this.#threads !== undefined) return this.#threads.openEncoder(level);
    if (makeZstdCompress === undefined) return this.#portable.openEncoder(format, level);
    const params = { [constants.ZSTD_c_compressionLevel]: level };
    return encoderOf(makeZstdCompress({ chunkSize, flush: constants.ZSTD_e_flush, params }));
  }

  decodePage(format: PageFormat, input: Uint8Array, target: Uint8Array): void {
    const inflate = format === 'zlib' ? inflateSync : inflateRawSync;
    let result: { buffer: Uint8Array; engine: { bytesWritten: number } };
    try {
      // Node's types do not cover the result with `info`. The bytes that the engine wrote are the input that it
      // consumed.
      result = inflate(input, { maxOutputLength: target.length, info: true }) as unknown as typeof result;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw overflow(target.length);
      throw new CodecError(`cannot decode the deflate data: ${(error as Error).message}`);
    }
    if (result.buffer.length !== target.length) {
      throw new CodecError(`expected ${target.length} bytes of output, got ${result.buffer.length}`);
    }
    if (result.engine.bytesWritten !== input.length) {
      throw new CodecError(`expected the data to end after ${input.length} bytes, got ${result.engine.bytesWritten}`);
    }
    target.set(result.buffer);
  }
}

/** One of Node's transforms, never ended: a write is complete once all of its output has arrived. */
class Pump {
  readonly #stream: Transform;
  readonly #what: string;
  #target: Uint8Array = new Uint8Array();
  #written = 0;
  #fail: ((error: Error) => void) | undefined;

  /** `what`: the meaning of a stream error. */
  constructor(stream: Transform, what: string) {
    this.#stream = stream;
    this.#what = what;
    stream.on('data', (chunk: Uint8Array) => {
      if (chunk.length > this.#target.length - this.#written) {
        this.close();
        this.#fail?.(overflow(this.#target.length));
        return;
      }
      this.#target.set(chunk, this.#written);
      this.#written += chunk.length;
    });
    stream.on('error', (error: Error) => this.#fail?.(this.#explain(error)));
  }

  /** Passes a piece through; its whole output is in `target` afterwards. */
  pass(input: Uint8Array, target: Uint8Array): Promise<number> {
    this.#target = target;
    this.#written = 0;
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#stream.write(input, (error) => {
        if (error) reject(this.#explain(error));
        else resolve(this.#written);
      });
    });
  }

  close(): void {
    this.#stream.destroy();
  }

  #explain({ message }: Error): CodecError {
    return new CodecError(`${this.#what}: ${message}`);
  }
}

function decoderOf(stream: Transform): PageDecoder {
  const pump = new Pump(stream, 'cannot decode the data');
  return { decode: (input, target) => pump.pass(input, target), close: () => pump.close() };
}

/** `stream` flushes after each write. */
function encoderOf(stream: Transform): PageEncoder {
  const pump = new Pump(stream, 'cannot compress the data');
  return { encode: (input, target) => pump.pass(input, target), close: () => pump.close() };
}
/** zstd: one transform per frame, since Node's stops at the end of a frame. */
class FrameDecoder implements PageDecoder {
  readonly #make: NonNullable<typeof makeZstd>;
  readonly #frames = new ZstdFrames();
  #frame: PageDecoder | undefined;

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
      this.#frame ??= decoderOf(this.#make({ chunkSize }));
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
