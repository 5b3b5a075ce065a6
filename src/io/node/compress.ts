/**
 * Compresses a whole file in Node: gzip by node:zlib, other formats by the program of that name through pipes, with
 * libvirt's options (docs/formats/libvirt.md, "Layout"). If the program zstd is missing, the portable encoder replaces
 * it. The counterpart of `decompress.ts`.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { type Readable, Transform, type TransformCallback, type Writable } from 'node:stream';
import * as zlib from 'node:zlib';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import type { ByteSink } from '../byte-source.ts';
import type { Compression } from '../compression.ts';
import type { PageEncoder } from '../page-codec.ts';
import { PortableCodecs } from '../portable-codecs.ts';
import { describeExit, hasProgram } from './decompress.ts';

/** Bytes that node:zlib outputs at a time. */
const chunkSize = 256 * 1024;
/** Characters to keep of a program's error output. */
const maxComplaint = 2000;

const programs: Record<Exclude<Compression, 'gzip'>, string[]> = {
  bzip2: ['-c'],
  xz: ['-c', '-3'],
  lzop: ['-c'],
  zstd: ['-cq'],
};

/** Bytes in a frame of the portable zstd encoder. */
const frameBytes = 1024 * 1024;
/** The default level of the program zstd. */
const zstdLevel = 3;

/** Takes the data to compress, in order. */
export interface CompressingSink extends ByteSink, AutoClosed {
  /** Waits until all output has been written. */
  end(): Promise<void>;
  /** Stops without writing the rest. */
  abandon(): void;
}

/**
 * Compresses what is written to it into `output`. It must be ended or abandoned: until then a program runs and keeps
 * Node running.
 * @throws RangeError for an unknown format; Error, from `write` or `end`, if the program is missing or fails.
 */
export function compressTo(format: Compression, output: ByteSink): CompressingSink {
  if (format === 'gzip') {
    return compressorOf(zlib.createGzip({ chunkSize }), output);
  }
  if (format === 'zstd' && !hasProgram('zstd')) return compressorOf(new ZstdFramer(), output);
  const options = programs[format];
  if (options === undefined) {
    throw new RangeError(`expected the format gzip, ${Object.keys(programs).join(', ')}, got ${format}`);
  }
  const child = spawn(format, options, { stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true });
  return new Compressor(child.stdin, child.stdout, output, endOf(format, child), () => void child.kill('SIGKILL'));
}

function compressorOf(transform: Transform, output: ByteSink): CompressingSink {
  return new Compressor(transform, transform, output, Promise.resolve(undefined), () => transform.destroy());
}

/** Makes zstd frames of 1 MiB each. */
class ZstdFramer extends Transform {
  readonly #encoder = new PortableCodecs().openEncoder('zstd', zstdLevel);
  readonly #input = new Uint8Array(frameBytes);
  readonly #output = new Uint8Array(frameBytes + frameBytes / 128);
  #length = 0;

  override _transform(chunk: Uint8Array, _: BufferEncoding, done: TransformCallback): void {
    this.#take(chunk).then(() => done(), done);
  }

  override _flush(done: TransformCallback): void {
    this.#sendFrame().then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#encoder.then((encoder) => encoder.close()).then(() => done(error), done);
  }

  async #take(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      const step = Math.min(frameBytes - this.#length, chunk.length - at);
      this.#input.set(chunk.subarray(at, at + step), this.#length);
      this.#length += step;
      at += step;
      if (this.#length === frameBytes) await this.#sendFrame();
    }
  }

  async #sendFrame(): Promise<void> {
    const encoder: PageEncoder = await this.#encoder;
    const length = await encoder.encode(this.#input.subarray(0, this.#length), this.#output);
    this.push(this.#output.slice(0, length));
    this.#length = 0;
  }
}

/** How a program ended: undefined on success. */
function endOf(program: string, child: ChildProcessWithoutNullStreams): Promise<Error | undefined> {
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, maxComplaint);
  });
  return new Promise((resolve) => {
    child.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'ENOENT' ? 'is not installed' : `cannot be started (${cause.message})`;
      resolve(new Error(`cannot compress to ${program}: the program "${program}" ${why}`, { cause }));
    });
    child.once('close', (code, killedBy) => {
      const said = complaint.trim().split('\n')[0] || `${program} ${describeExit(code ?? killedBy ?? -1)}`;
      resolve(code === 0 ? undefined : new Error(said));
    });
  });
}

class Compressor implements CompressingSink {
  readonly #input: Writable;
  /** Resolves once all output is written and the program has ended; holds the failure, if any. */
  readonly #done: Promise<Error | undefined>;
  readonly #stop: () => void;

  constructor(input: Writable, from: Readable, to: ByteSink, ended: Promise<Error | undefined>, stop: () => void) {
    this.#input = input;
    this.#stop = stop;
    // The program's exit status reports input errors.
    input.on('error', () => {});
    this.#done = this.#pump(from, to, ended);
  }

  async #pump(from: Readable, to: ByteSink, ended: Promise<Error | undefined>): Promise<Error | undefined> {
    try {
      for await (const chunk of from) await to.write(chunk as Uint8Array);
      return await ended;
    } catch (error) {
      this.#stop();
      return error as Error;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    const taken = new Promise<undefined>((resolve) => this.#input.write(bytes, () => resolve(undefined)));
    const failure = await Promise.race([taken, this.#done]);
    if (failure !== undefined) throw failure;
  }

  async end(): Promise<void> {
    this.#input.end();
    const failure = await this.#done;
    if (failure !== undefined) throw failure;
  }

  abandon(): void {
    this.#stop();
  }

  /** Abandons the output unless it has ended. */
  async [asyncDispose](): Promise<void> {
    this.#stop();
  }
}
