/** A relay between two ends in memory. */
import { type Connection, type Listener, PeerError } from '../../src/io/connection.ts';
import { type RelayOptions, type RelayResult, relay } from '../../src/migrate/relay.ts';
import { connectionPair, type MemoryConnection, type PairOptions } from './connection-pair.ts';
import { ManualClock, settle } from './manual-clock.ts';

/** A listener that a test connects to. */
class MemoryListener implements Listener {
  readonly uri = 'memory:';
  isClosed = false;
  readonly #arrived: Connection[] = [];
  #wake: () => void = () => {};

  connect(options: PairOptions = {}): MemoryConnection {
    const [here, there] = connectionPair(options);
    this.#arrived.push(there);
    this.#wake();
    return here;
  }

  async accept(): Promise<Connection | undefined> {
    for (;;) {
      const next = this.#arrived.shift();
      if (next !== undefined) return next;
      if (this.isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.#wake();
  }
}

export interface RelayEnds {
  listener: MemoryListener;
  clock: ManualClock;
  /** The target's ends of the connections, in the order in which they were made. */
  targets: MemoryConnection[];
  /** Why connections were refused. */
  refused: string[];
  result: Promise<RelayResult>;
  /** Waits until there are as many connections to the target. */
  connected(count: number): Promise<void>;
}

/** Starts a relay. `refuses`: the target cannot be reached. `hold`: it is connected only then. */
export function startRelay(
  options: Partial<RelayOptions> & { pair?: PairOptions; refuses?: boolean; hold?: Promise<void> } = {},
): RelayEnds {
  const listener = new MemoryListener();
  const clock = new ManualClock();
  const targets: MemoryConnection[] = [];
  const refused: string[] = [];
  const connect = async () => {
    if (options.refuses === true) {
      throw new PeerError("Failed to connect to 'host:1': Connection refused", { code: 'ECONNREFUSED' });
    }
    await options.hold;
    const [here, there] = connectionPair(options.pair);
    targets.push(there);
    return here;
  };
  const result = relay(listener, { connect, clock, onRefused: (_, reason) => refused.push(reason), ...options });
  result.catch(() => {});
  const connected = async (count: number) => {
    while (targets.length < count) await settle();
  };
  return { listener, clock, targets, refused, result, connected };
}

/** Reads exactly `count` bytes, fewer if the line ends. */
export async function take(line: Connection, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  let at = 0;
  while (at < count) {
    const read = await line.read(bytes.subarray(at), at);
    if (read === 0) break;
    at += read;
  }
  return bytes.subarray(0, at);
}

/** Reads to the end. */
export async function takeAll(line: Connection): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let at = 0; ; ) {
    const piece = new Uint8Array(1 << 16);
    const count = await line.read(piece, at);
    if (count === 0) return Buffer.concat(parts);
    parts.push(piece.subarray(0, count));
    at += count;
  }
}
