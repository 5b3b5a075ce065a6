/**
 * A part of a file on a web server that is read in ascending order, from one response. The response is read only as far
 * as its bytes are asked for. If the connection breaks, another request continues where it broke off.
 *
 *     file      |......|=========|.....gap.....|==========|.......|
 *                      ^ from    skipped if it is short   ^ end
 */
import {
  brokenOff,
  pause as delay,
  HttpError,
  type HttpTarget,
  type Incoming,
  maxAttempts,
  parseContentRange,
  request,
  skip,
  take,
  validatorOf,
} from './http-request.ts';

/** A file that can be requested in parts. */
export interface RangeFile extends HttpTarget {
  /** Its length in bytes. */
  size: number;
  /** A value that changes with the file, if the server sends one. */
  validator: string | undefined;
}

/** A longer gap is not read and dropped, but costs a request of its own. */
const maxGap = 1 << 20;

export class HttpRange {
  readonly end: number;
  readonly #file: RangeFile;
  /** Position after all reads that were requested. */
  #next: number;
  #incoming: Incoming | undefined;
  #isClosed = false;
  /** Reads are served one at a time. */
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor(file: RangeFile, from: number, end: number) {
    this.#file = file;
    this.#next = from;
    this.end = end;
  }

  /** Whether the range still has the byte at `position`. */
  has(position: number): boolean {
    return !this.#isClosed && position >= this.#next && position < this.end;
  }

  /** Reads from a position that it still {@link has}. Returns fewer bytes only at the end of the range. */
  read(target: Uint8Array, position: number): Promise<number> {
    const bytes = target.subarray(0, this.end - position);
    this.#next = position + bytes.length;
    this.#waiting++;
    const reading = this.#turn.then(() => this.#read(bytes, position)).finally(() => this.#waiting--);
    this.#turn = reading.catch(() => {});
    return reading;
  }

  /** Closes the connection after the reads that were requested. */
  async finish(): Promise<void> {
    await this.#turn;
    this.close();
  }

  /** Closes the connection at once. */
  close(): void {
    this.#isClosed = true;
    this.#drop();
  }

  async #read(target: Uint8Array, position: number): Promise<number> {
    for (let done = 0, failures = 0; done < target.length; ) {
      try {
        const incoming = await this.#at(position + done);
        const left = (incoming.end as number) - incoming.position;
        const count = await take(incoming, target.subarray(done, done + left));
        if (count === 0) throw new Error('the connection ended early');
        done += count;
        failures = 0;
        if (incoming.position === incoming.end) this.#drop();
      } catch (cause) {
        this.#drop();
        if (cause instanceof HttpError) throw cause;
        if (++failures === maxAttempts || this.#isClosed) throw brokenOff(this.#file.name, position + done, cause);
        await delay(failures);
      }
    }
    return target.length;
  }

  /** Returns a response whose next byte is the one at `position`. */
  async #at(position: number): Promise<Incoming> {
    const incoming = this.#incoming;
    if (incoming !== undefined) {
      const gap = position - incoming.position;
      if (gap >= 0 && gap <= maxGap && position < (incoming.end as number)) {
        await skip(incoming, gap);
        return incoming;
      }
      this.#drop();
    }
    const opened = await this.#request(position);
    if (this.#isClosed) {
      opened.abort.abort();
      throw new Error('the source was closed');
    }
    this.#incoming = opened;
    openRanges.add(this);
    return opened;
  }

  async #request(position: number): Promise<Incoming> {
    const { validator, size, name } = this.#file;
    makeRoom();
    const abort = new AbortController();
    const headers: Record<string, string> = { range: `bytes=${position}-${this.end - 1}` };
    if (validator !== undefined) headers['if-range'] = validator;
    const response = await request(this.#file, headers, position, abort, [200, 206, 412, 416]);
    const range = parseContentRange(response);
    const isSame = validator === undefined || (validatorOf(response) ?? validator) === validator;
    const fail = (message: string) => {
      abort.abort();
      return new HttpError(message, name, position, response.status);
    };
    if (response.status !== 206 || !isSame || (range.size !== undefined && range.size !== size)) {
      throw fail('the file changed while it was read');
    }
    if (range.start !== position || range.end > this.end || range.end <= position || response.body === null) {
      throw fail('the server sent a different range from the one requested');
    }
    return { reader: response.body.getReader(), abort, position, end: range.end, rest: new Uint8Array() };
  }

  #drop(): void {
    this.#incoming?.abort.abort();
    this.#incoming = undefined;
    openRanges.delete(this);
  }

  /** Closes the connection if no read waits for it. The next read opens it again. */
  pause(): void {
    if (this.#waiting === 0) this.#drop();
  }
}

/** Ranges whose response is open, the one that was opened first in front. */
const openRanges = new Set<HttpRange>();

/**
 * A browser has six connections to a server. A response that nobody reads at present, such as that of a multifd channel
 * whose turn has not come, must not keep the last of them.
 */
const maxOpen = 'document' in globalThis || 'WorkerGlobalScope' in globalThis ? 4 : Number.POSITIVE_INFINITY;

function makeRoom(): void {
  for (const range of openRanges) {
    if (openRanges.size < maxOpen) return;
    range.pause();
  }
}
