/**
 * A file on a web server as a source, by fetch. If the server answers range requests, the source has random access and
 * fetches only what is needed. Otherwise the file is read forward, in one response.
 *
 * - A reader that announces what it will read in order (`willRead`) gets it from one response.
 * - Any other read is a request of its size. If such reads go on in order, the requests become longer.
 * - The first bytes, and the last ones once they were read, are kept, because formats have their tables there.
 *
 * The ETag or date of the file shows whether it changed in between. A broken connection is opened again.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { orAborted } from './abort.ts';
import type { OpenedSource } from './byte-source.ts';
import { HttpRange, type RangeFile } from './http-range.ts';
import {
  brokenOff,
  HttpError,
  type HttpOptions,
  type HttpTarget,
  type Incoming,
  maxAttempts,
  parseContentRange,
  parseTarget,
  pause,
  request,
  shownUrl,
  take,
  validatorOf,
} from './http-request.ts';
import type { ResponseLike } from './platform.ts';

export { HttpError, type HttpOptions } from './http-request.ts';

/** Bytes of the first request, enough to recognize the file. */
const firstBytes = 16 * 1024;
/** The most bytes at the end that are kept: as many as are searched for the VM description. */
const maxTail = 16 << 20;
/** The most bytes that are requested ahead for a reader that announced nothing. */
const maxAhead = 32 << 20;
/** Reads in order before anything is requested ahead. */
const readsBeforeAhead = 3;

/** An http or https URL. */
export type HttpUrl = `http://${string}` | `https://${string}`;

/** Whether a location is a URL for {@link openHttp}. */
export function isHttp(location: string): location is HttpUrl {
  return /^https?:\/\//i.test(location);
}

/** A file on a server. */
export interface HttpFile extends OpenedSource {
  /** What the server says of this version of the file: a strong ETag, or the date of its last change. */
  readonly validator?: string | undefined;
}

/** Opens a URL by requesting its first bytes. @throws HttpError; TypeError for an invalid URL */
export async function openHttp(location: string, options: HttpOptions = {}): Promise<HttpFile> {
  const opening = openTarget(location, options);
  try {
    return await orAborted(opening, options.signal);
  } catch (error) {
    void opening.then((source) => source.close()).catch(() => {});
    throw error;
  }
}

async function openTarget(location: string, options: HttpOptions): Promise<HttpFile> {
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

async function openOnce(target: HttpTarget): Promise<HttpFile> {
  const abort = new AbortController();
  const range = `bytes=0-${firstBytes - 1}`;
  const response = await request(target, { range }, 0, abort, [200, 206, 416]);
  if (response.status === 200) return streamOf(target, response, abort);
  // A file without a first byte has no range that contains it.
  if (response.status === 416) {
    abort.abort();
    return new HttpSource({ ...target, size: 0, validator: undefined }, new Uint8Array());
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
    return new HttpSource({ ...target, size, validator: validatorOf(response) }, head);
  }
  // The response does not say which range it is, or the page may not see it (another origin).
  abort.abort();
  const whole = new AbortController();
  return streamOf(target, await request(target, {}, 0, whole, [200]), whole);
}

/** A file with random access. */
class HttpSource implements HttpFile {
  readonly name: string;
  readonly size: number;
  readonly validator: string | undefined;
  readonly #file: RangeFile;
  /** The first bytes, and the last ones once they were read. */
  readonly #head: Uint8Array;
  #tail: Uint8Array = new Uint8Array();
  /** What will be read in order; nothing of it has been requested yet. */
  #announced = { from: 0, to: 0 };
  /** What is being read in order, after an announcement and without one. */
  #inOrder: HttpRange | undefined;
  #ahead: HttpRange | undefined;
  /** Reads without an announcement that continued each other: where the last one ended, their number and bytes. */
  #run = { end: -1, reads: 0, bytes: 0 };
  readonly #open = new Set<HttpRange>();
  #isClosed = false;

  constructor(file: RangeFile, head: Uint8Array) {
    this.name = file.name;
    this.size = file.size;
    this.validator = file.validator;
    this.#file = file;
    this.#head = head;
  }

  willRead(from: number, to: number): void {
    this.#announced = { from, to: Math.min(to, this.size) };
  }

  read(target: Uint8Array, position: number): Promise<number> | number {
    if (position >= this.size || target.length === 0) return 0;
    if (position < this.#head.length) return copy(this.#head, position, target);
    const tailStart = this.size - this.#tail.length;
    if (position >= tailStart) return copy(this.#tail, position - tailStart, target);
    if (this.#isClosed) throw new HttpError('the source was closed', this.name, position);
    const bytes = target.subarray(0, Math.min(target.length, tailStart - position));
    const range = this.#rangeFor(position, bytes.length);
    const isTail = position + bytes.length === tailStart && this.size - position <= maxTail;
    const reading = range.read(bytes, position);
    return isTail && range !== this.#inOrder ? this.#keepTail(reading, bytes, position) : reading;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const range of this.#open) range.close();
    this.#open.clear();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The range from whose response a read is served: one that is open, or a new one. */
  #rangeFor(position: number, length: number): HttpRange {
    const { from, to } = this.#announced;
    const isAnnounced = from <= position && position < to;
    if (this.#inOrder?.has(position) === true) {
      const { end } = this.#inOrder;
      if (isAnnounced) this.#announced = { from: end, to };
      return this.#inOrder;
    }
    if (isAnnounced) {
      this.#announced = { from: 0, to: 0 };
      this.#inOrder = this.#replace(this.#inOrder, position, to);
      return this.#inOrder;
    }
    return this.#unannounced(position, length);
  }

  #unannounced(position: number, length: number): HttpRange {
    const run = this.#run;
    const goesOn = position === run.end;
    const reads = goesOn ? run.reads + 1 : 1;
    if (!goesOn || this.#ahead?.has(position) !== true) {
      const ahead = reads > readsBeforeAhead ? Math.min(run.bytes, maxAhead) : 0;
      this.#ahead = this.#replace(this.#ahead, position, position + Math.max(length, ahead));
    }
    const range = this.#ahead as HttpRange;
    const count = Math.min(length, range.end - position);
    this.#run = { end: position + count, reads, bytes: goesOn ? run.bytes + count : count };
    return range;
  }

  #replace(old: HttpRange | undefined, from: number, end: number): HttpRange {
    if (old !== undefined) void old.finish().then(() => this.#open.delete(old));
    const range = new HttpRange(this.#file, from, Math.min(end, this.size - this.#tail.length));
    this.#open.add(range);
    return range;
  }

  async #keepTail(reading: Promise<number>, bytes: Uint8Array, position: number): Promise<number> {
    const count = await reading;
    // Another read may have kept the same bytes.
    if (position + count === this.size - this.#tail.length) {
      const tail = new Uint8Array(count + this.#tail.length);
      tail.set(bytes);
      tail.set(this.#tail, count);
      this.#tail = tail;
    }
    return count;
  }
}

/** Copies the bytes that are there from `at` on. */
function copy(bytes: Uint8Array, at: number, target: Uint8Array): number {
  const piece = bytes.subarray(at, at + target.length);
  target.set(piece);
  return piece.length;
}

/**
 * A Response of `fetch` as a source that is read forward. Closing it cancels the body.
 * @throws HttpError for a status other than success; TypeError for a body that is missing, partial or already read
 */
export function openResponse(response: ResponseLike): OpenedSource {
  const { status, statusText, body, url = '' } = response;
  const name = isHttp(url) ? shownUrl(url) : url.split(',')[0] || 'Response';
  const refuse = (what: string) => new TypeError(`expected a Response that can be read, got ${what}`);
  if (response.bodyUsed === true || body?.locked === true) throw refuse('one whose body was already read');
  if (status < 200 || status > 299) {
    void body?.cancel().catch(() => {});
    if (status === 0) throw refuse('an opaque one: fetch it without the mode no-cors');
    throw new HttpError(`the server answered ${status} ${statusText}`.trim(), name, 0, status);
  }
  if (body === null) throw refuse('one without a body');
  const { start, end, size } = parseContentRange(response);
  if (status === 206 && (start !== 0 || end !== size)) {
    void body.cancel().catch(() => {});
    throw refuse('a part of a file (206): fetch it without a range, or open its body');
  }
  const reader = body.getReader();
  const abort = () => void reader.cancel().catch(() => {});
  return new HttpStream(name, { reader, abort: { abort }, position: 0, end: lengthOf(response), rest: noBytes });
}

const noBytes = new Uint8Array();

function streamOf({ name }: HttpTarget, response: ResponseLike, abort: AbortController): HttpStream {
  const reader = (response.body ?? new Blob([]).stream()).getReader();
  return new HttpStream(name, { reader, abort, position: 0, end: lengthOf(response), rest: noBytes });
}

/** The length of the file. It is that of the response only if the response has no content encoding. */
function lengthOf({ headers }: ResponseLike): number | undefined {
  const length = Number(headers.get('content-length') ?? Number.NaN);
  return headers.get('content-encoding') === null && Number.isSafeInteger(length) ? length : undefined;
}

/** A file that the server sends only as a whole. */
class HttpStream implements OpenedSource {
  readonly name: string;
  readonly size = undefined;
  readonly #incoming: Incoming;

  constructor(name: string, incoming: Incoming) {
    this.name = name;
    this.#incoming = incoming;
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
