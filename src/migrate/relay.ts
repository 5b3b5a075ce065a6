/**
 * A relay: it waits for a source, connects to its target, and passes the migration on. Two relays in a row are a relay.
 *
 *     listening ──→ main connection ──→ connecting ──→ passing on ──→ ended
 *         ↑               │                  │              │
 *         └─ a stranger ──┘                  └──────────────┴────→ LiveError, which says where the guest is
 */
import { orAborted } from '../io/abort.ts';
import type { ByteStore } from '../io/byte-source.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import type { Connection, Listener } from '../io/connection.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import { Bandwidth } from './bandwidth.ts';
import { LineWatch } from './line-watch.ts';
import { LiveError } from './live-error.ts';
import type { Recording } from './recording.ts';
import type { TargetEncoding } from './relay-encode.ts';
import { RelayFlow } from './relay-flow.ts';
import { type Arrival, Intake } from './relay-intake.ts';
import { type PassOptions, type PassResult, RelayPass } from './relay-pass.ts';
import { RelayMeter, type RelayProgress } from './relay-progress.ts';
import { StreamWatch } from './relay-watch.ts';
import { Tee, type TeeTarget } from './tee.ts';

/** How RAM is encoded again, for the target of a relay. */
export interface RelayEncoding extends TargetEncoding {
  /** Makes an empty file, which gets as large as the guest: for the content that deltas of the source change. */
  makeScratch: () => Promise<ByteStore>;
}

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
  /**
   * Sends RAM to the target through this many multifd channels, in this encoding. Default: every byte is passed on as it
   * is.
   */
  encoding?: RelayEncoding | undefined;
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
  /** Called every 100 ms while bytes move, and at the end of a migration that succeeds. */
  onProgress?: ((progress: RelayProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
}

/** What passed through a relay. */
export interface RelayResult extends PassResult {
  /** Connections to the target. */
  connections: number;
  /** Bytes that the source has sent, bytes that the target has taken, over all connections, and bytes back. */
  sourceBytes: number;
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
  const { clock = systemClock, maxBandwidth = 0, signal, setupTimeoutMs = 30_000, onRefused } = options;
  const intake = new Intake(listener, { clock, setupTimeoutMs, onRefused });
  let watch: LineWatch | undefined;
  let work: Work | undefined;
  let meter: RelayMeter | undefined;
  try {
    const main = await untilAborted(intake.main(), signal);
    options.onBegin?.(main.connection.name);
    const { idleTimeoutMs, onWaiting } = options;
    watch = new LineWatch({
      clock,
      idleTimeoutMs,
      onWaiting,
      awaited: () => work?.pass.awaited ?? 'the source to send more',
      signal,
    });
    const bandwidth = maxBandwidth > 0 ? new Bandwidth(maxBandwidth, clock) : undefined;
    work = await prepare(main, options, { clock, intake, watch, bandwidth });
    const { pass, keeper } = work;
    meter = options.onProgress && new RelayMeter(clock, () => pass.counts, options.onProgress);
    const result = await pass.run(main);
    await keeper?.finish();
    if (keeper?.failure !== undefined) throw new LiveError('target', teeFailed, keeper.failure.error);
    meter?.complete();
    const { connections, sourceBytes, forwardBytes, returnBytes } = pass;
    return { ...result, connections, sourceBytes, forwardBytes, returnBytes };
  } finally {
    meter?.stop();
    watch?.stop();
    await work?.keeper?.close();
    await intake.close();
  }
}

/** What keeps the guest in a file. */
interface Keeper {
  readonly failure: { error: unknown } | undefined;
  finish(): Promise<void>;
  close(): Promise<void> | void;
}

interface Work {
  pass: RelayPass;
  keeper: Keeper | undefined;
}

/** Makes what passes a migration on, and what keeps it. */
async function prepare(
  main: Arrival,
  options: RelayOptions,
  parts: Pick<PassOptions, 'clock' | 'intake' | 'watch' | 'bandwidth'>,
): Promise<Work> {
  const { connect, targetAnswers = true, recording, tee: kept, encoding, setupTimeoutMs = 30_000 } = options;
  const { intake, watch, bandwidth } = parts;
  const kernel = await loadKernelFor([pageBatchArenaBytes(flowBatchCapacity)]);
  const stream = new StreamWatch(new PageBatch(kernel, flowBatchCapacity));
  const channelsKnown = () => intake.settled();
  const wrap = recording === undefined ? (line: Connection) => line : recording.wrap;
  const common = { ...parts, connect, targetAnswers, stream, wrap };
  // Postcopy sends its pages on the main connection, so there is nothing to encode in its recovery.
  if (encoding === undefined || main.opening === 'recovery') {
    const tee = kept && (await Tee.open(kept.target, { codecs: kept.codecs, channelsKnown }));
    return { pass: new RelayPass({ ...common, tee, flow: undefined }), keeper: tee };
  }
  const flow = await RelayFlow.open({
    ...{ encoding, tee: kept?.target, makeScratch: encoding.makeScratch, channelsKnown, bandwidth, stream },
    connect: async () => watch.add(await connect(), 'target'),
    isEnd: () => pass.isComplete,
    onMove: () => pass.checkTarget(),
    onStarted: () => void pass.expectAnswer(setupTimeoutMs),
  });
  const pass: RelayPass = new RelayPass({ ...common, tee: undefined, flow });
  return { pass, keeper: flow };
}

/** @throws LiveError with the reason of `signal`, before any migration has begun */
async function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  const next = 'nothing was passed on, so the guest is at the source; if it does not run on there, `cont` resumes it';
  try {
    return await orAborted(work, signal);
  } catch (error) {
    throw error instanceof LiveError ? error : new LiveError('source', next, error);
  }
}
