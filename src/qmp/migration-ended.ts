/**
 * Waits until a migration has ended, whoever began it.
 *
 *     connect ──→ greeting ──→ listen for events ──→ events: on ──→ an event with a final status ───────────┐
 *        ↑ none     │                                   │ refused                                           ├─→ query-migrate
 *        └──────────┘                                   └──→ query-migrate, until its final status is new ──┘
 *
 * An event that comes is of a migration that ends now. A status that is asked for may be of an earlier one: it counts if
 * a migration was running before, or if the answer has changed.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import { QmpClient } from './client.ts';
import { printJson } from './json-value.ts';
import { QmpError } from './qmp-error.ts';
import type { MigrationStatus } from './types/enums.ts';
import type { MigrationInfo } from './types/migration.ts';

/** How a migration ended. */
export interface MigrationEnd {
  readonly status: Extract<MigrationStatus, 'completed' | 'failed' | 'cancelled'>;
  /** What query-migrate answered then; only the status if QEMU had already gone, as a failed destination does. */
  readonly info: MigrationInfo;
}

/** Options of {@link migrationEnded}. */
export interface MigrationEndedOptions {
  /** Ends the wait. The migration goes on. */
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock;
}

/** How long it waits between two attempts to connect, in ms. */
const connectAgainMs = 100;
/** How often query-migrate is asked if there are no events, in ms. */
const askAgainMs = 100;
/** QEMU 7.2 reports times of 0 at the very end, for a moment. */
const timesComeMs = 20;
const timesComeTries = 10;

/**
 * Waits until the running migration ends or, if none is running, the next one. The result of an earlier migration does not
 * count, nor does the status `none`. Turns the capability `events` on, and leaves it on.
 *
 *     const ended = migrationEnded(client);
 *     await client.execute('migrate', { uri: 'tcp:target:4444' });
 *     const { status, info } = await ended;
 *
 * @param client a client, or how to connect: it then connects until QMP greets, and closes its client at the end
 * @throws the reason of `signal`; PeerError if the line breaks before the migration has ended
 */
export async function migrationEnded(
  client: QmpClient | (() => Promise<Connection>),
  { signal, clock = systemClock }: MigrationEndedOptions = {},
): Promise<MigrationEnd> {
  if (client instanceof QmpClient) return endOf(client, clock, signal);
  const own = await connectUntilGreeted(client, clock, signal);
  try {
    return await endOf(own, clock, signal);
  } finally {
    await own.close();
  }
}

async function connectUntilGreeted(
  connect: () => Promise<Connection>,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<QmpClient> {
  for (;;) {
    try {
      signal?.throwIfAborted();
      return await QmpClient.connect(await connect(), { signal });
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      await clock.sleep(connectAgainMs, signal);
    }
  }
}

const isFinal = (status: unknown): status is MigrationEnd['status'] =>
  status === 'completed' || status === 'failed' || status === 'cancelled';

async function endOf(client: QmpClient, clock: Clock, signal: AbortSignal | undefined): Promise<MigrationEnd> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const waiting = signal === undefined ? controller.signal : AbortSignal.any([signal, controller.signal]);
  // From now on, so that no end is missed while events are turned on.
  const event = client.nextEvent('MIGRATION', { where: ({ status }) => isFinal(status), signal: waiting });
  event.catch(() => {});
  try {
    const fromEvent = event.then(({ data }) => data.status as MigrationEnd['status']);
    // Sent at once, so that the caller's own `migrate` comes after it.
    const asked = turnEventsOn(client, waiting).then((events) =>
      events === 'on' ? fromEvent : askUntilEnded(client, events === 'refused: running', clock, waiting),
    );
    const status = await Promise.race([fromEvent, asked]);
    return { status, info: await finalInfo(client, status, clock, signal) };
  } finally {
    controller.abort();
  }
}

/** Whether events come. QEMU may refuse to turn them on once a migration runs, or once a destination listens. */
type Events = 'on' | 'refused: running' | 'refused';

async function turnEventsOn(client: QmpClient, signal: AbortSignal | undefined): Promise<Events> {
  try {
    const events = { capability: 'events', state: true } as const;
    await orAbort(client.execute('migrate-set-capabilities', { capabilities: [events] }), signal);
    return 'on';
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return error.message === "There's a migration process in progress" ? 'refused: running' : 'refused';
  }
}

/** @param isRunning the first final status is the one that is waited for, and not an earlier one */
async function askUntilEnded(
  client: QmpClient,
  isRunning: boolean,
  clock: Clock,
  signal: AbortSignal,
): Promise<MigrationEnd['status']> {
  let earlier: string | undefined;
  for (;;) {
    const info = await orAbort(client.execute('query-migrate'), signal);
    const { status } = info;
    earlier ??= isRunning || !isFinal(status) ? '' : printJson(info);
    if (isFinal(status) && printJson(info) !== earlier) return status;
    if (!isFinal(status)) earlier = '';
    await clock.sleep(askAgainMs, signal);
  }
}

async function finalInfo(
  client: QmpClient,
  status: MigrationEnd['status'],
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<MigrationInfo> {
  for (let left = timesComeTries; ; left--) {
    let info: MigrationInfo;
    try {
      info = await orAbort(client.execute('query-migrate'), signal);
    } catch (error) {
      if (error instanceof PeerError) return { status };
      throw error;
    }
    if (info['total-time'] !== 0 || left === 0) return info;
    await clock.sleep(timesComeMs, signal);
  }
}

/** An answer, unless the wait is ended first. */
async function orAbort<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return answer;
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
  });
  answer.catch(() => {});
  try {
    return await Promise.race([answer, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
