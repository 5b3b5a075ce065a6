/**
 * A relay: it waits for a source, connects to its target, and passes the migration on. Two relays in a row are a relay.
 *
 *     listening ──→ main connection ──→ connecting ──→ passing on ──→ ended
 *         ↑               │                  │              │
 *         └─ a stranger ──┘                  └──────────────┴────→ LiveError, which says where the guest is
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { Connection, Listener } from '../io/connection.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { loadKernelFor } from '../kernel/kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import { Bandwidth } from './bandwidth.ts';
import { LineWatch } from './line-watch.ts';
import { LiveError } from './live-error.ts';
import type { Recording } from './recording.ts';
import { Intake } from './relay-intake.ts';
import { type PassResult, RelayPass } from './relay-pass.ts';
import { StreamWatch } from './relay-watch.ts';
import { Tee, type TeeTarget } from './tee.ts';

/** How a migration is relayed. */
export interface RelayOptions {
  /** Connects to the target. Called for each connection of the source. @throws PeerError */
  connect: () => Promise<Connection>;
  /**
   * Whether the end of the target's output means anything. False for a program, which may close its output from the
   * start. Default true.
   */
  targetAnswers?: boolean | undefined;
  /** Bytes per second to the target, over all connections. Default: no limit. */
  maxBandwidth?: number | undefined;
  /** Keeps the bytes of the source's connections. */
  recording?: Recording | undefined;
  /** Keeps the guest in a file, too. A file that cannot be written does not end the migration. */
  tee?: { target: TeeTarget; codecs: PageCodecs } | undefined;
  /** How long a connection may send nothing before a migration has begun, in ms. Default 30 s. */
  setupTimeoutMs?: number | undefined;
  /** Ends a migration in which no byte has moved for this long, in ms. Default: never. */
  idleTimeoutMs?: number | undefined;
  /** Called every 10 s while no byte moves, with the time since the last one in ms, and what is waited for. */
  onWaiting?: ((silentMs: number, what: string) => void) | undefined;
  /** Called with a connection that was closed because it is not part of a migration, and why. */
  onRefused?: ((name: string, reason: string) => void) | undefined;
  /** Called when a migration has begun, with the name of its connection. */
  onBegin?: ((name: string) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
}

/** What passed through a relay. */
export interface RelayResult extends PassResult {
  /** Connections to the target. */
  connections: number;
  /** Bytes from the source to the target, over all connections, and bytes back. */
  forwardBytes: number;
  returnBytes: number;
}

/** What is safe to do when only the file of the option `tee` is missing. */
const teeFailed = 'the migration went on without the file: the target has the guest';

/**
 * Relays one migration. Closes `listener` and all connections at the end.
 * @throws LiveError for every end that is not a success
 */
export async function relay(listener: Listener, options: RelayOptions): Promise<RelayResult> {
  const { clock = systemClock, connect, targetAnswers = true, maxBandwidth = 0, recording, signal } = options;
  const { setupTimeoutMs = 30_000, onRefused } = options;
  const intake = new Intake(listener, { clock, setupTimeoutMs, onRefused });
  const kernel = await loadKernelFor([pageBatchArenaBytes(flowBatchCapacity)]);
  const stream = new StreamWatch(new PageBatch(kernel, flowBatchCapacity));
  let watch: LineWatch | undefined;
  let pass: RelayPass | undefined;
  let tee: Tee | undefined;
  try {
    const main = await untilAborted(intake.main(), signal);
    options.onBegin?.(main.connection.name);
    const { idleTimeoutMs, onWaiting } = options;
    watch = new LineWatch({
      clock,
      idleTimeoutMs,
      onWaiting,
      awaited: () => pass?.awaited ?? 'the source to send more',
      signal,
    });
    const bandwidth = maxBandwidth > 0 ? new Bandwidth(maxBandwidth, clock) : undefined;
    const wrap = recording === undefined ? (line: Connection) => line : recording.wrap;
    tee =
      options.tee && (await Tee.open(options.tee.target, { ...options.tee, channelsKnown: () => intake.settled() }));
    pass = new RelayPass({ clock, intake, connect, targetAnswers, watch, stream, bandwidth, wrap, tee });
    const result = await pass.run(main);
    await tee?.finish();
    if (tee?.failure !== undefined) throw new LiveError('target', teeFailed, tee.failure.error);
    const { connections, forwardBytes, returnBytes } = pass;
    return { ...result, connections, forwardBytes, returnBytes };
  } finally {
    watch?.stop();
    tee?.abandon();
    await intake.close();
  }
}

/** @throws LiveError with the reason of `signal`, before any migration has begun */
async function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  const next = 'nothing was passed on, so the guest is at the source; if it does not run on there, `cont` resumes it';
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(new LiveError('source', next, signal?.reason));
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } catch (error) {
    throw error instanceof LiveError ? error : new LiveError('source', next, error);
  } finally {
    signal?.removeEventListener('abort', abort);
    work.catch(() => {});
  }
}
