/** Two ends of a line in memory, with as little buffer as a test wants. */
import { type Connection, PeerError } from '../../src/io/connection.ts';

export interface PairOptions {
  /** Bytes that each direction takes before its reader has read. Default 64 KiB. */
  buffer?: number;
  /** The most bytes that a read returns. */
  readBytes?: number;
  /** The first end can only be written, as a pipe. Default false. */
  oneWay?: boolean;
}

/** One direction. */
class Direction {
  readonly capacity: number;
  readonly #chunks: Uint8Array[] = [];
  #length = 0;
  isEnded = false;
  /** The line broke, and how its writer and its reader see that. */
  broken: { write: PeerError; read: PeerError } | undefined;
  #waiting: (() => void)[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      if (this.broken !== undefined) throw this.broken.write;
      const chunk = bytes.slice(at, at + this.capacity - this.#length);
      if (chunk.length === 0) {
        await this.#change();
        continue;
      }
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      at += chunk.length;
      this.wake();
    }
    if (this.broken !== undefined) throw this.broken.write;
  }

  async read(target: Uint8Array): Promise<number> {
    for (;;) {
      const [first] = this.#chunks;
      if (first !== undefined) {
        const count = Math.min(first.length, target.length);
        target.set(first.subarray(0, count));
        if (count === first.length) this.#chunks.shift();
        else this.#chunks[0] = first.subarray(count);
        this.#length -= count;
        this.wake();
        return count;
      }
      if (this.broken !== undefined) throw this.broken.read;
      if (this.isEnded) return 0;
      await this.#change();
    }
  }
}

/** Ends of a line, and what became of them. */
export interface MemoryConnection extends Connection {
  readonly isDestroyed: boolean;
  readonly isEnded: boolean;
}

function connection(out: Direction, into: Direction, { readBytes = 1 << 20 }: PairOptions, canRead: boolean) {
  const state = { isDestroyed: false, isEnded: false };
  let isReading = false;
  let isWriting = false;
  const self: MemoryConnection = {
    ...{ name: 'memory', size: undefined, canRead, canWrite: true, method: 'memory' },
    get isDestroyed() {
      return state.isDestroyed;
    },
    get isEnded() {
      return state.isEnded;
    },
    async read(target) {
      if (isReading) throw new Error('expected one read at a time, got two');
      isReading = true;
      try {
        return await into.read(target.subarray(0, readBytes));
      } finally {
        isReading = false;
      }
    },
    async write(bytes) {
      if (isWriting) throw new Error('expected one write at a time, got two');
      isWriting = true;
      try {
        await out.write(bytes);
      } finally {
        isWriting = false;
      }
    },
    async end() {
      state.isEnded = true;
      out.isEnded = true;
      out.wake();
    },
    destroy() {
      if (state.isDestroyed) return;
      state.isDestroyed = true;
      const reset = new PeerError('Unable to read from socket: Connection reset by peer', { code: 'ECONNRESET' });
      const pipe = new PeerError('Unable to write to socket: Broken pipe', { code: 'EPIPE' });
      for (const direction of [out, into]) {
        direction.broken ??= { read: reset, write: pipe };
        direction.wake();
      }
    },
    async close() {
      await self.end();
    },
  };
  return self;
}

/** Returns the two ends: what one writes, the other reads. */
export function connectionPair(options: PairOptions = {}): [MemoryConnection, MemoryConnection] {
  const { buffer = 64 << 10, oneWay = false } = options;
  const [there, back] = [new Direction(buffer), new Direction(buffer)];
  return [connection(there, back, options, !oneWay), connection(back, there, options, true)];
}
