/**
 * A line over a pair of web streams: what a page, a worker or another runtime has. Two pages can migrate over a
 * MessageChannel this way.
 */
import { type Connection, type Listener, PeerError } from './connection.ts';

/** The two directions of a line. Either may be missing. */
export interface StreamPair {
  readable?: ReadableStream<Uint8Array>;
  writable?: WritableStream<Uint8Array>;
}

/** Makes a connection of a pair of streams. `name` is for messages. */
export function connectStreams(pair: StreamPair, name: string): Connection {
  return new WebConnection(pair, name);
}

/** Two connections to each other in memory. Each direction holds at most `highWaterBytes`, 1 MiB by default. */
export function connectionPair(highWaterBytes = 1 << 20): [Connection, Connection] {
  const strategy = { highWaterMark: highWaterBytes, size: ({ length }: Uint8Array) => length };
  const make = () => new TransformStream<Uint8Array, Uint8Array>(undefined, strategy, strategy);
  const [there, back] = [make(), make()];
  return [
    connectStreams({ readable: back.readable, writable: there.writable }, 'a line in memory'),
    connectStreams({ readable: there.readable, writable: back.writable }, 'a line in memory'),
  ];
}

/** A listener for lines that exist already: a page's destination has its lines from a MessageChannel, perhaps. */
export function listenOn(lines: readonly Connection[], uri = 'lines'): Listener {
  const waiting = [...lines];
  let end: () => void = () => {};
  const closed = new Promise<undefined>((resolve) => {
    end = () => resolve(undefined);
  });
  return {
    uri,
    accept: async () => waiting.shift() ?? closed,
    async close() {
      end();
    },
  };
}

class WebConnection implements Connection {
  readonly name: string;
  readonly size = undefined;
  readonly method = 'web streams';
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #rest: Uint8Array = new Uint8Array();
  #position = 0;
  #isDestroyed = false;

  constructor({ readable, writable }: StreamPair, name: string) {
    this.name = name;
    this.#reader = readable?.getReader();
    this.#writer = writable?.getWriter();
    // Failures are reported by the read or write that meets them.
    this.#reader?.closed.catch(() => {});
    this.#writer?.closed.catch(() => {});
    this.#writer?.ready.catch(() => {});
  }

  get canRead(): boolean {
    return this.#reader !== undefined;
  }

  get canWrite(): boolean {
    return this.#writer !== undefined;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (position < this.#position)
      throw new RangeError(`expected a position from ${this.#position} on, got ${position}`);
    for (;;) {
      const skipped = Math.min(position - this.#position, this.#rest.length);
      this.#rest = this.#rest.subarray(skipped);
      this.#position += skipped;
      if (this.#rest.length > 0) break;
      const chunk = await this.#next();
      if (chunk === undefined) return 0;
      this.#rest = chunk;
    }
    const piece = this.#rest.subarray(0, target.length);
    target.set(piece);
    this.#rest = this.#rest.subarray(piece.length);
    this.#position += piece.length;
    return piece.length;
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (this.#isDestroyed) throw new PeerError('Unable to read from socket: the line was broken');
    try {
      const { value } = (await this.#reader?.read()) ?? {};
      if (this.#isDestroyed) throw new Error('the line was broken');
      return value;
    } catch (cause) {
      throw new PeerError(`Unable to read from socket: ${reasonOf(cause)}`, { cause });
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#isDestroyed || this.#writer === undefined) throw new PeerError('Unable to write to socket: Broken pipe');
    try {
      // The stream keeps the chunk.
      await this.#writer.write(bytes.slice());
    } catch (cause) {
      throw new PeerError(`Unable to write to socket: ${reasonOf(cause)}`, { cause });
    }
  }

  async end(): Promise<void> {
    await this.#writer?.close().catch(() => {});
  }

  destroy(): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    const reason = new Error('Connection reset by peer');
    this.#reader?.cancel(reason).catch(() => {});
    this.#writer?.abort(reason).catch(() => {});
  }

  async close(): Promise<void> {
    await this.end();
    await this.#reader?.cancel().catch(() => {});
  }
}

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));
