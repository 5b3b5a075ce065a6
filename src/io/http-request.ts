/**
 * Requests to a web server, by fetch: repeated if the failure may be temporary, with credentials that no message shows,
 * and with the response as bytes that are taken as they arrive.
 *
 * The body of a response is read only on demand. Bytes that nobody has asked for yet stay with the server, apart from
 * one chunk and the buffers of the connection, so a response of any length takes constant memory.
 */
import type { Abortable } from './abort.ts';
import type { FetchLike, ResponseLike, StreamReaderLike } from './platform.ts';

/** Consecutive requests that may fail without a byte in between, before the error is passed on. */
export const maxAttempts = 4;
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

/** A response whose bytes are still arriving. */
export interface Incoming {
  reader: StreamReaderLike<Uint8Array>;
  /** Ends the response early. */
  abort: Pick<AbortController, 'abort'>;
  /** Position of the next byte. */
  position: number;
  /** Where the response ends; undefined if that is not known. */
  end: number | undefined;
  /** Bytes that have arrived and were not used yet. */
  rest: Uint8Array;
}

/** The file that is requested, and how. */
export interface HttpTarget {
  url: URL;
  /** The name in messages, without user, password and query. */
  name: string;
  headers: Record<string, string>;
  fetch: FetchLike;
}

export function brokenOff(name: string, offset: number, cause: unknown): HttpError {
  return new HttpError(`the connection broke off: ${reasonOf(cause)}`, name, offset, undefined, { cause });
}

/** A URL as messages show it: without user, password, query and fragment. */
export function shownUrl(location: string): string {
  const { origin, pathname } = new URL(location);
  return `${origin}${pathname}`;
}

export function parseTarget(location: string, { headers = {}, fetch: given }: HttpOptions): HttpTarget {
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
  return { url, name: shownUrl(url.href), headers: sent, fetch: given ?? ((input, init) => fetch(input, init)) };
}

/** Repeats a request until the status is one of `expected`, or until there is no hope of that. */
export async function request(
  target: HttpTarget,
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

export const pause = (attempt: number) =>
  new Promise((resolve) => setTimeout(resolve, firstDelayMs * 2 ** (attempt - 1)));

/** fetch only says that it failed. The cause gives the reason. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: { message?: string; code?: string } };
  return cause?.message || cause?.code || message || String(error);
}

export function parseContentRange(response: ResponseLike): { start: number; end: number; size: number | undefined } {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(response.headers.get('content-range') ?? '');
  if (match === null) return { start: -1, end: -1, size: undefined };
  const [, start, end, size] = match;
  return { start: Number(start), end: Number(end) + 1, size: size === '*' ? undefined : Number(size) };
}

/** A value that changes with the file, if the server sends one. */
export function validatorOf({ headers }: ResponseLike): string | undefined {
  const etag = headers.get('etag');
  if (etag !== null && !etag.startsWith('W/')) return etag;
  return headers.get('last-modified') ?? undefined;
}

/** Takes available bytes, or waits for more. Returns 0 at the end. */
export async function take(incoming: Incoming, target: Uint8Array): Promise<number> {
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

/** Drops bytes that nobody needs. @throws Error if the response ends before that */
export async function skip(incoming: Incoming, count: number): Promise<void> {
  for (let left = count; left > 0; ) {
    if (incoming.rest.length === 0) {
      const { done, value } = await incoming.reader.read();
      if (done || value === undefined) throw new Error('the connection ended early');
      incoming.rest = value;
    }
    const passed = Math.min(left, incoming.rest.length);
    incoming.rest = incoming.rest.subarray(passed);
    incoming.position += passed;
    left -= passed;
  }
}
