/**
 * The outgoing direction of all lines of a migration: bytes leave in pieces, within the bandwidth, while the peer is
 * watched.
 *
 *     StreamWriter ──→ sink of main ─────┐
 *                                        ├──→ Bandwidth ──→ PeerWatch ──→ Connection
 *     MultifdWriter ─→ sink of channel ──┘
 */
import type { ByteSink, ByteStore } from '../io/byte-source.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import type { Bandwidth } from './bandwidth.ts';
import type { PeerWatch } from './peer-watch.ts';

/**
 * Bytes of a piece. A line reports only whole pieces. So on a slow line pieces get smaller until each takes less than
 * half a second, and a peer that takes few bytes does not look silent.
 */
const pieces = { least: 4 << 10, first: 64 << 10, most: 2 << 20, slowMs: 500, fastMs: 50 };

export interface OutgoingOptions {
  bandwidth: Bandwidth;
  watch: PeerWatch;
  /** Called after each piece. */
  onSent: () => void;
  /** Ends a wait for the bandwidth. */
  signal: AbortSignal;
  clock?: Clock | undefined;
}

export class Outgoing {
  /** Bytes that the lines have taken. */
  sent = 0;
  readonly #options: OutgoingOptions;

  constructor(options: OutgoingOptions) {
    this.#options = options;
  }

  /** Returns a file whose writes are counted. */
  store(file: ByteStore): ByteStore {
    const { signal, onSent } = this.#options;
    return {
      ...{ name: file.name, ...(file.alignment === undefined ? {} : { alignment: file.alignment }) },
      get size() {
        return file.size;
      },
      read: (target, position) => file.read(target, position),
      write: async (bytes, position) => {
        signal.throwIfAborted();
        await file.write(bytes, position);
        this.sent += bytes.length;
        onSent();
      },
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      close: () => file.close(),
    };
  }

  /** Returns the sink of a line. Its writes may not overlap. `onSent` gets the bytes of each piece. */
  sink(line: Connection, onSent: (bytes: number) => void = () => {}): ByteSink {
    const { bandwidth, watch, signal, clock = systemClock } = this.#options;
    let piece = pieces.first;
    return {
      write: async (bytes) => {
        for (let at = 0; at < bytes.length; ) {
          signal.throwIfAborted();
          const count = await bandwidth.take(Math.min(piece, bytes.length - at), signal);
          const start = clock.now();
          await watch.during('the target to take more', line.write(bytes.subarray(at, at + count)));
          const ms = clock.now() - start;
          if (ms > pieces.slowMs) piece = Math.max(pieces.least, piece >> 1);
          else if (ms < pieces.fastMs) piece = Math.min(pieces.most, piece << 1);
          at += count;
          this.sent += count;
          onSent(count);
          this.#options.onSent();
        }
      },
    };
  }
}

/** The line to a file, which nobody reads. Its bytes go through {@link Outgoing.store}. */
export function fileLine(file: ByteStore): Connection {
  const refuse = async (): Promise<never> => {
    throw new PeerError('Unable to write to file: it is not written in order');
  };
  return {
    ...{ name: file.name, size: undefined, canRead: false, canWrite: true, method: 'file' },
    ...{ read: async () => 0, write: refuse, end: async () => {}, destroy() {} },
    close: () => file.sync(),
  };
}

/** The line into a sink, which nobody reads. */
export const sinkLine = (sink: ByteSink): Connection => ({
  ...{ name: 'a snapshot', size: undefined, canRead: false, canWrite: true, method: 'file' },
  ...{ read: async () => 0, end: async () => {}, destroy() {}, close: async () => {} },
  write: async (bytes) => sink.write(bytes),
});

/**
 * Sinks of channels that are connected one after another: QEMU 7.2 takes the first connection for the main line. Each is
 * connected when it is first written to, and sends its first bytes before the next one is connected, because a QEMU that
 * listens with TLS waits for them.
 */
export function channelSinks(count: number, open: () => Promise<ByteSink>): ByteSink[] {
  let earlier: Promise<unknown> = Promise.resolve();
  return Array.from({ length: count }, (): ByteSink => {
    let sink: ByteSink | undefined;
    const begin = async (bytes: Uint8Array) => {
      sink = await open();
      await sink.write(bytes);
    };
    return {
      write(bytes) {
        if (sink !== undefined) return sink.write(bytes);
        const begun = earlier.then(() => begin(bytes));
        earlier = begun;
        return begun;
      },
    };
  });
}
