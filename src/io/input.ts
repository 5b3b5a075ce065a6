/**
 * What people hold as a source of bytes: memory, Blobs, file handles, responses, and streams of every platform. Whoever
 * opens such an input takes it over. Closing the source closes, cancels or destroys the input.
 */

import { kindOf } from '../vm/kind-of.ts';
import { BlobSource } from './blob-source.ts';
import { type ByteSource, requireSource } from './byte-source.ts';
import { openHandle } from './file-handle.ts';
import { openResponse } from './http-source.ts';
import { MemoryFile } from './memory-file.ts';
import type {
  BlobHandleLike,
  BlobLike,
  FileHandleInput,
  NodeReadableLike,
  ReadableStreamLike,
  ResponseLike,
  UrlLike,
} from './platform.ts';
import { StreamSource } from './stream-source.ts';

/** Chunks of bytes, one after another: of a generator, for example. */
export type ByteChunks = AsyncIterable<ArrayBufferView | ArrayBufferLike>;

/** Everything that `open` takes on every platform, apart from URLs and a {@link ByteSource}. */
export type ByteInput =
  | BlobLike
  | BlobHandleLike
  | ArrayBufferView
  | ArrayBufferLike
  | FileHandleInput
  | ResponseLike
  | ReadableStreamLike
  | NodeReadableLike
  | ByteChunks;

/** The inputs in words, for errors. */
const inputWords =
  'a URL (string or object), a Blob or File, an ArrayBuffer or typed array, a FileHandle, a Response of fetch, a ReadableStream, a Node Readable, any other async iterable of bytes, or a ByteSource';

/** Consecutive chunks without a byte, after which a stream is considered broken. */
const maxEmptyChunks = 10_000;

/** The error for a value that is not a source of bytes. `others` are further inputs that the caller takes, in words. */
function notAnInput(input: unknown, others: string): TypeError {
  return new TypeError(`expected ${others}${inputWords}, got ${describe(input)}`);
}

function describe(input: unknown): string {
  const { href, protocol } = (input ?? {}) as Partial<UrlLike>;
  if (typeof href === 'string' && typeof protocol === 'string') return `a URL with the scheme ${protocol}`;
  return kindOf(input);
}

/** Whether an object has these methods. */
function hasMethods<Name extends string>(input: object, ...names: Name[]): input is Record<Name, () => unknown> {
  return names.every((name) => typeof (input as Record<string, unknown>)[name] === 'function');
}

/**
 * Makes a source of an input. `others` are further inputs that the caller takes, in words.
 * @throws TypeError for anything else, and for an input that can no longer be read; HttpError for a Response with an
 *   error status
 */
export function toSource(input: unknown, others = ''): ByteSource | Promise<ByteSource> {
  const memory = bytesOf(input);
  if (memory !== undefined) return new MemoryFile('memory', memory);
  if (typeof input !== 'object' || input === null || hasMethods(input, 'then')) throw notAnInput(input, others);
  if (isResponse(input)) return openResponse(input);
  if (hasMethods(input, 'getReader')) return openReadable(input as unknown as ReadableStreamLike);
  if (hasMethods(input, 'pipe', 'on')) return openNodeReadable(input as unknown as NodeReadableLike);
  if (isFileHandle(input)) return openHandle(input);
  if (hasMethods(input, 'getFile')) return openBlobHandle(input as unknown as BlobHandleLike);
  if (hasMethods(input, 'slice', 'arrayBuffer')) return new BlobSource(input as unknown as BlobLike);
  if (hasMethods(input, 'read', 'close')) {
    requireSource(input as unknown as ByteSource);
    return input as unknown as ByteSource;
  }
  if (Symbol.asyncIterator in input) return openChunks(input as ByteChunks, 'async iterable');
  throw notAnInput(input, others);
}

/** The bytes of a view or a buffer, of any realm; undefined for anything else. */
function bytesOf(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  const tag = Object.prototype.toString.call(value);
  if (tag === '[object ArrayBuffer]' || tag === '[object SharedArrayBuffer]') {
    return new Uint8Array(value as ArrayBufferLike);
  }
  return undefined;
}

function isResponse(input: object): input is ResponseLike {
  const { status, headers } = input as Partial<ResponseLike>;
  return typeof status === 'number' && 'body' in input && hasMethods(Object(headers), 'get');
}

function isFileHandle(input: object): input is FileHandleInput {
  return typeof (input as { fd?: unknown }).fd === 'number' && hasMethods(input, 'stat', 'read', 'close');
}

async function openBlobHandle(handle: BlobHandleLike): Promise<ByteSource> {
  return new BlobSource(await handle.getFile());
}

/** A ReadableStream as a source. Some browsers cannot iterate over a stream, so a reader does that. */
function openReadable(stream: ReadableStreamLike): ByteSource {
  if (stream.locked === true) {
    throw new TypeError('expected a ReadableStream that can be read, got one that another reader has locked');
  }
  const reader = stream.getReader();
  const chunks: AsyncIterator<unknown> = {
    async next() {
      const { done, value } = await reader.read();
      return done ? { done, value: undefined } : { done: false, value };
    },
  };
  return streamSource(chunks, 'ReadableStream', () => void reader.cancel().catch(() => {}));
}

function openNodeReadable(stream: NodeReadableLike): ByteSource {
  const name = 'Readable';
  const refuse = (what: string) => new TypeError(`expected a Node Readable that can be read, got ${what}`);
  if (stream.destroyed === true) {
    throw refuse(stream.errored == null ? 'one that was destroyed' : `one that failed: ${stream.errored.message}`);
  }
  if (stream.readableEnded === true) throw refuse('one that was already read to its end');
  if (stream.readable === false || !(Symbol.asyncIterator in stream)) throw refuse('a stream that can only be written');
  if (typeof stream.readableEncoding === 'string') {
    throw refuse(`one that decodes its bytes as ${stream.readableEncoding}: do not set an encoding`);
  }
  if (typeof stream.statusCode === 'number' && stream.statusCode >= 400) {
    stream.destroy();
    throw refuse(`a response with the status ${stream.statusCode}`);
  }
  // The stream may fail before its first read, which then throws the error.
  stream.on('error', () => {});
  return streamSource(stream[Symbol.asyncIterator](), name, () => void stream.destroy());
}

function openChunks(chunks: ByteChunks, name: string): ByteSource {
  const iterator = chunks[Symbol.asyncIterator]();
  let isWaiting = false;
  const watched: AsyncIterator<unknown> = {
    async next() {
      isWaiting = true;
      try {
        return await iterator.next();
      } finally {
        isWaiting = false;
      }
    },
  };
  return streamSource(watched, name, async () => {
    const ending = Promise.resolve(iterator.return?.()).catch(() => {});
    // A generator ends only after its pending chunk, which may never come.
    if (!isWaiting) await ending;
  });
}

/** A forward-only source of chunks that are checked. */
function streamSource(chunks: AsyncIterator<unknown>, name: string, cancel: () => Promise<void> | void): ByteSource {
  return new StreamSource({ [Symbol.asyncIterator]: () => checkedChunks(chunks, name) }, name, cancel);
}

function checkedChunks(chunks: AsyncIterator<unknown>, name: string): AsyncIterator<Uint8Array> {
  let hasBytes = false;
  let empty = 0;
  return {
    async next() {
      const result = await chunks.next();
      if (typeof result !== 'object' || result === null) throw new TypeError(`${name}: expected an iterator's result`);
      if (result.done === true) {
        if (hasBytes) return { done: true, value: undefined };
        throw new TypeError(`${name}: expected bytes, got none: it is empty, or was already read`);
      }
      const bytes = bytesOf(result.value);
      if (bytes === undefined) throw notAChunk(name, result.value);
      empty = bytes.length === 0 ? empty + 1 : 0;
      if (empty > maxEmptyChunks) throw new TypeError(`${name}: expected bytes, got ${empty} empty chunks in a row`);
      hasBytes ||= bytes.length > 0;
      return { done: false, value: bytes };
    },
  };
}

function notAChunk(name: string, chunk: unknown): TypeError {
  const got = typeof chunk === 'string' ? 'a string: it must not be decoded' : kindOf(chunk);
  return new TypeError(`${name}: expected chunks of bytes (Uint8Array), got ${got}`);
}
