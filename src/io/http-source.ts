/**
 * A file on a web server as a source, by fetch. If the server answers range requests, the source has random access and
 * fetches only the requested bytes. A single read is one request of its size. Consecutive reads are served from one
 * response, whose size grows as they continue. Otherwise the file is read forward, in one response.
 *
 * The ETag or date of the file shows whether it changed in between. A broken connection is opened again.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { type Abortable, orAborted } from './abort.ts';
import type { OpenedSource } from './byte-source.ts';
import type { FetchLike, ResponseLike, StreamReaderLike } from './platform.ts';

/** Bytes of the first request, enough to recognize the file. */
const firstBytes = 16 * 1024;
/** The most bytes in one request. */
const maxRequest = 32 << 20;
/** Consecutive requests that may fail without a byte in between, before the error is passed on. */
const maxAttempts = 4;
const firstDelayMs = 250;
/** Status codes of errors that may be temporary. */
const passing = new Set([408, 429, 500, 502, 503, 504]);

/** How requests are made. */
export interface HttpOptions extends Abortable {
  /** Headers for every request, such as `authorization`. */
  headers?: Record<string, string>;
  /** Default: the platform's. */
  fetch?: FetchLike;
}

/** A server does not return the requested bytes. The message never contains a password from the URL. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly code = 'ERR_HTTP';
  readonly url: string;
  /** The status of the response, if there was one. */
  readonly status: number | undefined;
  /** Position in the file. */
  readonly offset: number;

  constructor(message: string, url: string, offset: number, status?: number, options?: ErrorOptions) {
    super(`${message} (${url} at offset ${offset})`, options);
    this.url = url;
    this.offset = offset;
    this.status = status;
  }
}

/** An http or https URL. */
export type HttpUrl = `http://${string}` | `https://${string}`;

/** Whether a location is a URL for {@link openHttp}. */
export function isHttp(location: string): location is HttpUrl {
  return /^https?:\/\//i.test(location);
}

/** A response whose bytes are still arriving. */
interface Incoming {
  reader: StreamReaderLike<Uint8Array>;
  abort: AbortController;
  /** Position of the next byte. */
  position: number;
  /** Where the response ends; undefined if that is not known. */
  end: number | undefined;
  /** Bytes that have arrived and were not used yet. */
  rest: Uint8Array;
}

interface Target {
  url: URL;
  /** The name in messages, without user, password and query. */
  name: string;
  headers: Record<string, string>;
  fetch: FetchLike;
}

/** Opens a URL by requesting its first bytes. @throws HttpError; TypeError for an invalid URL */
export async function openHttp(location: string, options: HttpOptions = {}): Promise<OpenedSource> {
  const opening = openTarget(location, options);
  try {
    return await orAborted(opening, options.signal);
  } catch (error) {
    void opening.then((source) => source.close()).catch(() => {});
    throw error;
  }
}

async function openTarget(location: string, options: HttpOptions): Promise<OpenedSource> {
  const target = parseTarget(location, options);
  for (let attempt = 1; ; attempt++) {
    try {
      return await openOnce(target);
    } catch (cause) {
      if (cause instanceof HttpError) throw cause;
      if (attempt === maxAttempts) throw brokenOff(target.name, 0, cause);
      await pause(attempt);
    }
  }
}

async function openOnce(target: Target): Promise<OpenedSource> {
  const abort = new AbortController();
  const range = `bytes=0-${firstBytes - 1}`;
  const response = await request(target, { range }, 0, abort, [200, 206, 416]);
  if (response.status === 200) return new HttpStream(target, response, abort);
  // A file without a first byte has no range that contains it.
  if (response.status === 416) {
    abort.abort();
    return new HttpSource(target, 0, new Uint8Array(), undefined);
  }
  const { start, end, size } = parseContentRange(response);
  const length = Math.min(firstBytes, size ?? 0);
  if (start === 0 && end === length && size !== undefined && response.body !== null) {
    const head = new Uint8Array(length);
    const incoming = { reader: response.body.getReader(), abort, position: 0, end, rest: new Uint8Array() };
    for (let done = 0; done < length; ) {
      const count = await take(incoming, head.subarray(done));
      if (count === 0) throw new Error('the connection ended early');
      done += count;
    }
    return new HttpSource(target, size, head, validatorOf(response));
  }
  // The response does not say which range it is, or the page may not see it (another origin).
  abort.abort();
  const whole = new AbortController();
  return new HttpStream(target, await request(target, {}, 0, whole, [200]), whole);
}

function brokenOff(name: string, offset: number, cause: unknown): HttpError {
  return new HttpError(`the connection broke off: ${reasonOf(cause)}`, name, offset, undefined, { cause });
}

function parseTarget(location: string, { headers = {}, fetch: given }: HttpOptions): Target {
  const url = new URL(location);
  url.hash = '';
  const sent = { ...headers };
  if (url.username !== '' || url.password !== '') {
    const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
    // btoa takes bytes, not characters.
    sent.authorization ??= `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(credentials)))}`;
    url.username = '';
    url.password = '';
  }
  const shown = new URL(url);
  shown.search = '';
  return { url, name: shown.href, headers: sent, fetch: given ?? ((input, init) => fetch(input, init)) };
}

/** Repeats a request until the status is one of `expected`, or until there is no hope of that. */
async function request(
  target: Target,
  headers: Record<string, string>,
  offset: number,
  abort: AbortController,
  expected: number[],
): Promise<ResponseLike> {
  // A response with a content encoding has no ranges of the file itself.
  const sent = { 'accept-encoding': 'identity', ...target.headers, ...headers };
  for (let attempt = 1; ; attempt++) {
    let response: ResponseLike;
    try {
      response = await target.fetch(target.url.href, { headers: sent, signal: abort.signal });
    } catch (cause) {
      if (attempt < maxAttempts && !abort.signal.aborted) {
        await pause(attempt);
        continue;
      }
      throw new HttpError(`the server cannot be reached: ${reasonOf(cause)}`, target.name, offset, undefined, {
        cause,
      });
    }
    if (expected.includes(response.status)) return response;
    await response.body?.cancel().catch(() => {});
    if (passing.has(response.status) && attempt < maxAttempts) {
      await pause(attempt);
      continue;
    }
    const message = `the server answered ${response.status} ${response.statusText}`.trim();
    throw new HttpError(message, target.name, offset, response.status);
  }
}

const pause = (attempt: number) => new Promise((resolve) => setTimeout(resolve, firstDelayMs * 2 ** (attempt - 1)));

/** fetch only says that it failed. The cause gives the reason. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: { message?: string; code?: string } };
  return cause?.message || cause?.code || message || String(error);
}

function parseContentRange(response: ResponseLike): { start: number; end: number; size: number | undefined } {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(response.headers.get('content-range') ?? '');
  if (match === null) return { start: -1, end: -1, size: undefined };
  const [, start, end, size] = match;
  return { start: Number(start), end: Number(end) + 1, size: size === '*' ? undefined : Number(size) };
}

/** A value that changes with the file, if the server sends one. */
function validatorOf({ headers }: ResponseLike): string | undefined {
  const etag = headers.get('etag');
  if (etag !== null && !etag.startsWith('W/')) return etag;
  return headers.get('last-modified') ?? undefined;
}

/** A file with random access. */
class HttpSource implements OpenedSource {
  readonly name: string;
  readonly size: number;
  readonly #target: Target;
  /** The first bytes. */
  readonly #head: Uint8Array;
  readonly #validator: string | undefined;
  #incoming: Incoming | undefined;
  /** Bytes of the next request, if it continues where the last one ended. */
  #nextRequest = 0;
  /** Where the last response ended. */
  #lastEnd = -1;
  #isClosed = false;
  /** Reads are served one at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(target: Target, size: number, head: Uint8Array, validator: string | undefined) {
    this.name = target.name;
    this.size = size;
    this.#target = target;
    this.#head = head;
    this.#validator = validator;
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    if (position >= this.size || target.length === 0) return 0;
    if (position < this.#head.length) {
      const piece = this.#head.subarray(position, position + target.length);
      target.set(piece);
      return piece.length;
    }
    const reading = this.#turn.then(() => this.#read(target, position));
    this.#turn = reading.catch(() => {});
    return reading;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#end();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  async #read(target: Uint8Array, position: number): Promise<number> {
    const length = Math.min(target.length, this.size - position);
    let done = 0;
    for (let failures = 0; done < length; ) {
      try {
        const incoming = await this.#at(position + done, length - done);
        const left = (incoming.end as number) - incoming.position;
        const count = await take(incoming, target.subarray(done, Math.min(length, done + left)));
        if (count === 0) throw new Error('the connection ended early');
        done += count;
        failures = 0;
        if (incoming.position === incoming.end) this.#end();
      } catch (cause) {
        this.#end();
        if (cause instanceof HttpError) throw cause;
        if (++failures === maxAttempts || this.#isClosed) throw brokenOff(this.name, position + done, cause);
        await pause(failures);
      }
    }
    return length;
  }

  /** Returns a response whose next byte is the one at `position`. */
  async #at(position: number, length: number): Promise<Incoming> {
    if (this.#incoming?.position === position) return this.#incoming;
    this.#end();
    // A read that continues where the last response ended will probably be followed by others.
    const goesOn = position === this.#lastEnd;
    this.#nextRequest = goesOn ? Math.min(maxRequest, Math.max(length, this.#nextRequest * 2)) : length;
    const end = Math.min(this.size, position + this.#nextRequest);
    const abort = new AbortController();
    const headers: Record<string, string> = { range: `bytes=${position}-${end - 1}` };
    if (this.#validator !== undefined) headers['if-range'] = this.#validator;
    const response = await request(this.#target, headers, position, abort, [200, 206, 412, 416]);
    const range = parseContentRange(response);
    const isSame = this.#validator === undefined || (validatorOf(response) ?? this.#validator) === this.#validator;
    const fail = (message: string) => {
      abort.abort();
      return new HttpError(message, this.name, position, response.status);
    };
    if (response.status !== 206 || !isSame || (range.size !== undefined && range.size !== this.size)) {
      throw fail('the file changed while it was read');
    }
    if (range.start !== position || range.end > end || range.end <= position || response.body === null) {
      throw fail('the server sent a different range from the one requested');
    }
    this.#lastEnd = range.end;
    this.#incoming = { reader: response.body.getReader(), abort, position, end: range.end, rest: new Uint8Array() };
    return this.#incoming;
  }

  #end(): void {
    this.#incoming?.abort.abort();
    this.#incoming = undefined;
  }
}

/** A file that the server sends only as a whole. */
class HttpStream implements OpenedSource {
  readonly name: string;
  readonly size = undefined;
  readonly #incoming: Incoming;

  constructor(target: Target, response: ResponseLike, abort: AbortController) {
    this.name = target.name;
    const length = Number(response.headers.get('content-length') ?? Number.NaN);
    // The length is the file's only if the response has no content encoding.
    const isPlain = response.headers.get('content-encoding') === null && Number.isSafeInteger(length);
    const end = isPlain ? length : undefined;
    const reader = (response.body ?? new Blob([]).stream()).getReader();
    this.#incoming = { reader, abort, position: 0, end, rest: new Uint8Array() };
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const incoming = this.#incoming;
    if (position < incoming.position) {
      throw new RangeError(`${this.name}: expected a position from ${incoming.position} on, got ${position}`);
    }
    try {
      while (incoming.position < position) {
        const passed = new Uint8Array(Math.min(64 * 1024, position - incoming.position));
        if ((await take(incoming, passed)) === 0) break;
      }
      const count = await take(incoming, target);
      if (count > 0 || incoming.end === undefined || incoming.position >= incoming.end) return count;
    } catch (cause) {
      throw brokenOff(this.name, incoming.position, cause);
    }
    throw new HttpError('the connection ended early', this.name, incoming.position);
  }

  async close(): Promise<void> {
    this.#incoming.abort.abort();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Takes available bytes, or waits for more. Returns 0 at the end. */
async function take(incoming: Incoming, target: Uint8Array): Promise<number> {
  while (incoming.rest.length === 0) {
    const { done, value } = await incoming.reader.read();
    if (done || value === undefined) return 0;
    incoming.rest = value;
  }
  const piece = incoming.rest.subarray(0, target.length);
  target.set(piece);
  incoming.rest = incoming.rest.subarray(piece.length);
  incoming.position += piece.length;
  return piece.length;
}
