/**
 * The connections of an incoming migration, told apart by their first bytes (`opening.ts`). Anyone can connect:
 *
 *     stream        the main stream; a second one is refused
 *     channel       a multifd channel
 *     recovery      the main stream of a recovery (`isRecovery`); otherwise it is refused
 *     page          the preempt channel, which may be read before the main stream
 *     other         a stranger, which is closed
 *     no byte       before the main stream: closed after the time limit; after it: a preempt channel may be silent
 *
 * A QEMU takes the first that connects for the source (`connections`): a stranger ends the migration, and silence is waited
 * for.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { Connection, Listener } from '../io/connection.ts';
import { takeTurn } from '../io/event-loop-yield.ts';
import { PeekedConnection } from '../io/peeked-connection.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { numberOfHello } from '../wire/multifd-packet.ts';
import { type Opening, openingBytes, openingOf } from './opening.ts';

/** How long a connection may take to send its first bytes, in ms. */
export const defaultSetupTimeoutMs = 30_000;
/**
 * How long the channels of a source that has begun are waited for, in ms, if one has not sent its first bytes yet. Nothing
 * shows so early that they are more than strangers. What shows it later is in {@link Incoming.another}.
 */
const channelPatienceMs = 500;

/** Why a connection is refused: it is a stranger's, recovers what is not here, or does not recover what is. */
const strange = 'Not a migration stream';
const unexpected = 'the recovery of a migration in postcopy cannot be received';
const anew = 'it begins a migration, and one in postcopy waits to be resumed';

/** What a connection is for. */
export type LineKind = 'main' | 'channel' | 'preempt';

/** A connection that was identified. It still yields its first bytes. */
export interface IncomingLine {
  kind: LineKind;
  connection: Connection;
  /** Of a multifd channel: its number, if its first bytes are whole. */
  number: number | undefined;
}

/** How connections are told apart. */
export interface IncomingOptions {
  clock?: Clock;
  /** How long a connection may be silent before the main stream has come, in ms. Default 30 s. */
  setupTimeoutMs?: number;
  /** How long to wait for channels whose TLS handshakes may be under way when the main stream has begun, in ms. Default 0. */
  handshakeMs?: number;
  /**
   * How many connections the source makes, asked with each; the listener is closed when they are there. With it, what
   * connects first must be the source. Default: strangers are refused, and the listener stays open.
   */
  connections?: () => number;
  /** The recovery of a migration in postcopy is expected, in place of a main stream. Default false. */
  isRecovery?: boolean;
  /** Called with a connection that was refused, and why. */
  onStranger?: (peer: string, why: string) => void;
  /** Called with every line that was identified, before anyone reads it. It may replace the connection. */
  onLine?: (line: IncomingLine) => Connection;
}

/** Accepts connections until it is closed. */
export class Incoming {
  readonly #listener: Listener;
  readonly #options: IncomingOptions;
  readonly #clock: Clock;
  /** Accepted, and not identified yet. */
  readonly #unknown = new Set<Connection>();
  /** Closed here, because they sent nothing. */
  readonly #expired = new WeakSet<Connection>();
  readonly #lines: IncomingLine[] = [];
  #take: ((line: IncomingLine) => void) | undefined;
  #main: IncomingLine | undefined;
  #failure: { error: unknown } | undefined;
  #isClosed = false;
  /** Nothing more will be accepted. */
  #hasEnded = false;
  #accepted = 0;
  /** Why the latest connection was refused. */
  #refusal: string | undefined;
  #wake: () => void = () => {};
  /** A connection broke before it was known what it was. */
  #hasBroken = false;
  /** A connection ended without a byte, or broke, after the main stream had begun. */
  #hasLost = false;
  /** Called when a line was added, or a connection was lost. */
  readonly #looks = new Set<() => void>();

  constructor(listener: Listener, options: IncomingOptions = {}) {
    this.#listener = listener;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    void this.#accept();
  }

  /** The URI that a source can use. */
  get uri(): string {
    return this.#listener.uri;
  }

  /**
   * Waits for the main stream. @throws Error if nothing can connect any more, the reason of `signal`, the listener's error
   */
  async main(signal?: AbortSignal): Promise<Connection> {
    const abort = () => this.#wake();
    signal?.addEventListener('abort', abort);
    try {
      while (this.#main === undefined) {
        signal?.throwIfAborted();
        if (this.#failure !== undefined) throw this.#failure.error;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      return this.#main.connection;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Whether a source may have begun, even if nothing of it was read. What the system has accepted counts, too, and so does
   * a connection that broke: what its peer had written was lost.
   */
  async mayHaveBegun(): Promise<boolean> {
    await this.settled();
    return this.#main !== undefined || this.#hasBroken;
  }

  /** Passes every line besides the main stream to `take`: those that have come, and those to come. */
  others(take: (line: IncomingLine) => void): void {
    this.#take = take;
    for (const line of this.#lines) take(line);
  }

  /** Resolves when every connection that the source opened before it sent what has been read was identified. */
  async settled(): Promise<void> {
    const { handshakeMs = 0 } = this.#options;
    // The system has accepted them already, in this order.
    for (let turn = 0; turn < 3; turn++) await takeTurn();
    if (handshakeMs > 0) await this.#clock.sleep(handshakeMs);
    const end = this.#clock.now() + channelPatienceMs;
    while (this.#unknown.size > 0 && this.#clock.now() < end) await this.#clock.sleep(5);
  }

  /**
   * Waits for another multifd channel. Resolves with whether it came: not after the time that a first byte may take, and
   * not if no silent connection is left, unless it certainly exists and none has been lost.
   */
  async another(isCertain: boolean): Promise<boolean> {
    const done = new AbortController();
    const { setupTimeoutMs = defaultSetupTimeoutMs } = this.#options;
    const count = this.#channelCount;
    const late = this.#clock.sleep(setupTimeoutMs, done.signal).then(
      () => false,
      () => false,
    );
    let look = () => {};
    const came = new Promise<boolean>((resolve) => {
      look = () => {
        if (this.#channelCount > count) resolve(true);
        else if (this.#isClosed || ((this.#hasLost || !isCertain) && this.#unknown.size === 0)) resolve(false);
      };
      this.#looks.add(look);
      look();
    });
    try {
      return await Promise.race([came, late]);
    } finally {
      done.abort();
      this.#looks.delete(look);
    }
  }

  get #channelCount(): number {
    return this.#lines.filter(({ kind }) => kind === 'channel').length;
  }

  /** Closes a connection that turns out to be a stranger's. */
  refuse(connection: Connection, why: string): void {
    this.#refuse(connection, why);
  }

  /** Stops listening, and breaks every connection. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#listener.close();
    for (const connection of this.#unknown) connection.destroy();
    for (const { connection } of this.#lines) connection.destroy();
    this.#main?.connection.destroy();
    this.#wake();
    for (const look of this.#looks) look();
  }

  async #accept(): Promise<void> {
    try {
      for (;;) {
        const connection = await this.#listener.accept();
        if (connection === undefined) break;
        if (this.#isClosed) connection.destroy();
        else void this.#identify(connection);
        this.#accepted += 1;
        if (this.#accepted >= (this.#options.connections?.() ?? Number.POSITIVE_INFINITY)) await this.#listener.close();
      }
      this.#hasEnded = true;
      for (const look of this.#looks) look();
      this.#endIfAlone();
    } catch (error) {
      this.#end(error);
    }
  }

  /** Ends the waiting for a main stream if none can come any more: a file or a pipe is one connection. */
  #endIfAlone(): void {
    if (!this.#hasEnded || this.#unknown.size > 0 || this.#main !== undefined) return;
    this.#end(this.#strangerError(this.#refusal ?? 'the listener was closed'));
  }

  #strangerError(why: string): MigrationError {
    const place = { source: this.uri, coordinate: 'file' as const, offset: 0 };
    return new MigrationError('not-a-migration-stream', why, place);
  }

  #end(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  async #identify(connection: Connection): Promise<void> {
    this.#unknown.add(connection);
    const done = new AbortController();
    if (this.#options.connections === undefined) void this.#limitSilence(connection, done.signal);
    try {
      const line = new PeekedConnection(connection, openingBytes);
      const opening = await lookAt(line);
      if (this.#main !== undefined && line.head.length === 0) this.#hasLost = true;
      if (opening === undefined && line.hasBroken && !this.#expired.has(connection)) this.#hasBroken = true;
      // What the source sent on its main connection before may be read later.
      if (opening === 'page') await this.#untilMain(done.signal);
      const kind = this.#kindOf(opening, line.head);
      if (typeof kind !== 'string') return this.#refuse(connection, kind.why);
      this.#add({ kind, connection: line, number: kind === 'channel' ? numberOfHello(line.head) : undefined });
    } catch (error) {
      if (this.#main !== undefined) this.#hasLost = true;
      this.#refuse(connection, error instanceof Error ? error.message : String(error));
    } finally {
      done.abort();
      this.#unknown.delete(connection);
      this.#endIfAlone();
      for (const look of this.#looks) look();
    }
  }

  /** Waits until the main stream has come, at most as long as a first byte may take. */
  async #untilMain(signal: AbortSignal): Promise<void> {
    const { setupTimeoutMs = defaultSetupTimeoutMs } = this.#options;
    let look = () => {};
    const came = new Promise<void>((resolve) => {
      look = () => {
        if (this.#main !== undefined || this.#isClosed || this.#hasEnded) resolve();
      };
      this.#looks.add(look);
      look();
    });
    await Promise.race([came, this.#clock.sleep(setupTimeoutMs, signal)]);
    this.#looks.delete(look);
  }

  /** Breaks a connection that has not sent its first bytes in time, unless it may be a preempt channel. */
  async #limitSilence(connection: Connection, done: AbortSignal): Promise<void> {
    const { setupTimeoutMs = defaultSetupTimeoutMs } = this.#options;
    try {
      await this.#clock.sleep(setupTimeoutMs, done);
    } catch {
      return;
    }
    if (this.#main !== undefined || !this.#unknown.has(connection)) return;
    this.#expired.add(connection);
    connection.destroy();
  }

  #kindOf(opening: Opening | undefined, head: Uint8Array): LineKind | { why: string } {
    const hasMain = this.#main !== undefined;
    if (head.length === 0) return { why: 'it was closed without a byte' };
    if (opening === 'channel') return 'channel';
    const { isRecovery = false } = this.#options;
    if (opening === (isRecovery ? 'recovery' : 'stream')) {
      return hasMain ? { why: 'another main stream is being received' } : 'main';
    }
    if (opening === 'page' && hasMain) return 'preempt';
    if (hasMain) return { why: strange };
    if (isRecovery) return { why: opening === 'stream' ? anew : strange };
    return { why: opening === 'recovery' ? unexpected : strange };
  }

  #add(line: IncomingLine): void {
    if (this.#isClosed) {
      line.connection.destroy();
      return;
    }
    const connection = this.#options.onLine?.(line) ?? line.connection;
    const added = { ...line, connection };
    if (line.kind === 'main') this.#main = added;
    else {
      this.#lines.push(added);
      this.#take?.(added);
    }
    this.#wake();
  }

  #refuse(connection: Connection, why: string): void {
    connection.destroy();
    this.#refusal = why;
    if (this.#options.connections !== undefined && this.#main === undefined) this.#end(this.#strangerError(why));
    if (!this.#isClosed) this.#options.onStranger?.(connection.name, why);
  }
}

/** Looks at a line until its first bytes say what it is. Undefined if it ends before. */
async function lookAt(line: PeekedConnection): Promise<Opening | undefined> {
  for (;;) {
    const opening = openingOf(line.head);
    const isSure = opening !== undefined && (opening !== 'recovery' || line.head.length > 2);
    if (isSure || line.isOver) return opening;
    await line.look();
  }
}
