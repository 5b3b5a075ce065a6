/**
 * Compressed streams as sources: recognizes the format, and gives a decompressor's output as a forward-only source. The
 * platform supplies the decompressors ({@link Decompress}); `portableDecompress` works everywhere. Output is passed on
 * as it comes, so memory stays bounded.
 */
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteSource, placeIn } from './byte-source.ts';
import type { PlatformSignal } from './platform.ts';
import { StreamSource } from './stream-source.ts';
import { maxZstdBlock, ZstdFrames } from './zstd-frames.ts';

const compressions = ['gzip', 'bzip2', 'xz', 'lzop', 'zstd'] as const;
/** A format that whole files are compressed with. */
export type Compression = (typeof compressions)[number];

/** The first bytes of files in each format. */
const magics: [Compression, number[]][] = [
  ['gzip', [0x1f, 0x8b, 0x08]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lzop', [0x89, 0x4c, 0x5a, 0x4f, 0x00, 0x0d, 0x0a, 0x1a, 0x0a]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
];

/** The compression of bytes, recognized by the first of them. */
export function findCompression(head: Uint8Array): Compression | undefined {
  if (isSkippable(head)) return 'zstd';
  const format = magics.find(([, magic]) => magic.every((byte, i) => head[i] === byte))?.[0];
  // The block size of bzip2 is a digit from 1 to 9. The other three bytes could begin any text.
  return format === 'bzip2' && !/[1-9]/.test(String.fromCharCode(head[3] ?? 0)) ? undefined : format;
}

/** Whether zstd data begins with a frame that is skipped, as pzstd and seekable zstd write it. Data of lz4 does not. */
function isSkippable(head: Uint8Array): boolean {
  if (((head[0] ?? 0) & 0xf0) !== 0x50) return false;
  return head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
}

/**
 * Decompresses chunks as they come. Aborting `signal` means that no more output is needed.
 * @throws MissingDecompressorError if the platform cannot decompress the format
 */
export type Decompress = (
  format: Compression,
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
) => AsyncIterable<Uint8Array>;

/** The input may be sound, but its decompressor is missing. */
export class MissingDecompressorError extends Error {
  override readonly name = 'MissingDecompressorError';
  readonly code = 'ERR_MISSING_DECOMPRESSOR';

  /** `missing` names what is missing. */
  constructor(format: string, missing: string, options?: ErrorOptions) {
    super(`${format} data cannot be decompressed: ${missing}`, options);
  }
}

/** Compressed bytes requested at a time. */
const inputBytes = 64 * 1024;

/** A source of the decompressed bytes of `source` from `offset` on. Closing it closes `source`. */
export function decompressSource(
  source: ByteSource,
  offset: number,
  format: Compression,
  decompress: Decompress,
): ByteSource {
  const ending = new AbortController();
  let inputFailure: { error: unknown } | undefined;
  async function* input(): AsyncGenerator<Uint8Array, void> {
    source.willRead?.(offset, Number.POSITIVE_INFINITY);
    for (let position = offset; !ending.signal.aborted; ) {
      const chunk = new Uint8Array(inputBytes);
      let count = 0;
      try {
        count = await source.read(chunk, position);
      } catch (error) {
        inputFailure = { error };
        throw error;
      }
      if (count === 0) return;
      position += count;
      yield chunk.subarray(0, count);
    }
  }
  async function* output(): AsyncGenerator<Uint8Array, void> {
    let position = 0;
    try {
      for await (const chunk of decompress(format, input(), ending.signal)) {
        if (chunk.length > 0) yield chunk;
        position += chunk.length;
      }
    } catch (error) {
      // The first failure says more than the decompressor's error that follows from it.
      if (inputFailure !== undefined) throw inputFailure.error;
      if (error instanceof MigrationError || error instanceof MissingDecompressorError) throw error;
      const message = `expected ${format} data: ${error instanceof Error ? error.message : String(error)}`;
      throw new MigrationError('bad-compression', message, {
        ...placeIn(source, position),
        coordinate: 'decompressed',
      });
    }
  }
  const stream = new StreamSource(output(), source.name, () => ending.abort());
  return {
    name: source.name,
    coordinate: 'decompressed',
    size: undefined,
    read: (target, position) => stream.read(target, position),
    async close() {
      await stream.close();
      await source.close();
    },
  };
}

/**
 * Decompresses gzip by the platform's DecompressionStream (only the first member on some platforms), xz by a library,
 * and zstd in WebAssembly.
 */
export const portableDecompress: Decompress = (format, chunks, signal) => {
  if (format === 'gzip') return gunzip(chunks, signal);
  if (format === 'xz') return unxz(chunks, signal);
  if (format === 'zstd') return unzstd(chunks, signal);
  throw new MissingDecompressorError(format, 'this platform has no decompressor for it');
};

const gunzip = (chunks: AsyncIterable<Uint8Array>, signal: PlatformSignal) => throughPlatform('gzip', chunks, signal);

/** Inflates raw deflate data, as in zip archives. Refuses the same data as zlib. */
export const inflateStream = (chunks: AsyncIterable<Uint8Array>, signal: PlatformSignal) =>
  throughPlatform('deflate-raw', chunks, signal);

async function* throughPlatform(
  format: 'gzip' | 'deflate-raw',
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
): AsyncGenerator<Uint8Array, void> {
  if (typeof DecompressionStream === 'undefined') {
    throw new MissingDecompressorError(format, 'this platform has no DecompressionStream');
  }
  const transform = new DecompressionStream(format) as unknown as TransformStream<Uint8Array, Uint8Array>;
  yield* readAll(toReadable(chunks).pipeThrough(transform), signal);
}

export async function* unxz(
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
): AsyncGenerator<Uint8Array, void> {
  const { XzReadableStream } = await loadLibrary(
    'xz',
    'xz-decompress',
    async () => (await import('xz-decompress')).default,
  );
  try {
    yield* readAll(new XzReadableStream(toReadable(chunks)), signal);
  } catch (error) {
    const code = /error code (\d+)/.exec((error as Error).message ?? '')?.[1];
    throw code === undefined ? error : new Error(xzErrors[code] ?? `error ${code}`);
  }
}

/** The meaning of the library's error numbers. */
const xzErrors: Record<string, string> = {
  3: 'not enough memory for its dictionary',
  4: 'not enough memory for its dictionary',
  5: 'not in xz format',
  6: 'options or a checksum that the library does not know',
  7: 'damaged',
  8: 'unexpected end of data',
};

/** Unpacks zstd frames block by block. Each block gives at most 128 KiB. */
export async function* unzstd(
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
): AsyncGenerator<Uint8Array, void> {
  const { ZstdWasm } = await loadLibrary('zstd', 'zstddec', () => import('./zstd-wasm.ts'));
  const decoder = (await ZstdWasm.load()).openDecoder();
  const frames = new ZstdFrames();
  let isWhole = true;
  try {
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length && !signal.aborted; ) {
        const { end, piece } = frames.next(chunk, at);
        const block = new Uint8Array(maxZstdBlock);
        const length = await decoder.decode(chunk.subarray(at, end), block);
        isWhole = piece === 'frame';
        at = end;
        yield block.subarray(0, length);
      }
      if (signal.aborted) return;
    }
  } finally {
    decoder.close();
  }
  if (!isWhole) throw new Error('unexpected end of data');
}

/** Unpacks a raw deflate stream to at most `length` bytes, and ignores what follows it. */
export async function inflateRaw(packed: Uint8Array, length: number): Promise<Uint8Array> {
  const { Inflate } = await loadLibrary('deflate', 'pako', () => import('./inflate.ts'));
  const stream = new Inflate({ raw: true, chunkSize: length });
  let unpacked: Uint8Array | undefined;
  const full = new Error('full');
  stream.onData = (chunk) => {
    unpacked = chunk;
    if (chunk.length === length) throw full;
  };
  try {
    stream.push(packed);
  } catch (error) {
    if (error !== full) throw error;
  }
  if (stream.err !== 0) throw new Error(stream.msg);
  if (unpacked === undefined) throw new Error('unexpected end of data');
  return unpacked;
}

async function loadLibrary<Library>(format: string, name: string, load: () => Promise<Library>): Promise<Library> {
  try {
    return await load();
  } catch (cause) {
    throw new MissingDecompressorError(format, `the library ${name} cannot be loaded`, { cause });
  }
}

function toReadable(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done === true) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

async function* readAll(stream: ReadableStream<Uint8Array>, signal: PlatformSignal): AsyncGenerator<Uint8Array, void> {
  const reader = stream.getReader();
  const cancel = () => void reader.cancel().catch(() => {});
  signal.addEventListener('abort', cancel, { once: true });
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
