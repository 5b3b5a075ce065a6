/**
 * Tells apart the connections that a relay accepts, by their first bytes (`opening.ts`).
 *
 *     stream, recovery    main, the first of them
 *     channel             multifd channel
 *     nothing             a preempt channel, whose source has sent POSTCOPY_ADVISE: it carries nothing until a page is
 *                         asked for
 *     page                a preempt channel, too
 *     other               a stranger
 *
 * Several connections can be looked at at the same time, so one that stays silent does not keep the source waiting. A
 * source connects its main connection first, but may send nothing on it until all its channels are there.
 */
import type { Clock } from '../io/clock.ts';
import { type Connection, type Listener, PeerError } from '../io/connection.ts';
import { takeTurn } from '../io/event-loop-yield.ts';
import { PeekedConnection } from '../io/peeked-connection.ts';
import { numberOfHello } from '../wire/multifd-packet.ts';
import { type Opening, openingBytes, openingOf } from './opening.ts';

/** How long the channels of a source that has begun are waited for, in ms, and how often they are looked at. */
const [patienceMs, pollMs] = [500, 5];

/** A connection that was accepted. */
export class Arrival {
  readonly connection: PeekedConnection;
  /** What it begins with. Undefined: it has sent nothing so far, or too little. */
  opening: Opening | undefined;
  /** It is over, was closed, or belongs to the migration. */
  isTaken = false;

  constructor(connection: Connection) {
    this.connection = new PeekedConnection(connection, openingBytes);
  }

  /** The number of a multifd channel. */
  get channel(): number {
    return numberOfHello(this.connection.head) as number;
  }

  /** Waits until its first bytes say what it is. Returns undefined if it ends, or breaks, before that. */
  async identify(): Promise<Opening | undefined> {
    while (this.opening === undefined && !this.isTaken && !this.connection.isOver) {
      await this.connection.look();
      this.opening = openingOf(this.connection.head);
    }
    return this.opening;
  }

  /** Closes a connection that is not part of the migration. */
  refuse(): void {
    this.isTaken = true;
    this.connection.destroy();
  }
}

export interface IntakeOptions {
  clock: Clock;
  /** How long a connection may send nothing before it is closed, in ms, while it is not part of a migration. */
  setupTimeoutMs: number;
  /** Called with a connection that was closed because it is not a migration, and the reason. */
  onRefused?: ((name: string, reason: string) => void) | undefined;
}

/** Accepts connections. */
export class Intake {
  readonly #listener: Listener;
  readonly #options: IntakeOptions;
  /** Those that are neither part of the migration nor refused, in the order of their coming. */
  readonly #waiting: Arrival[] = [];
  /** Ends the waits under way. */
  readonly #waits = new Set<AbortController>();
  /** How many connections have not sent their first bytes. */
  #unknown = 0;
  #isClosed = false;
  #hasMain = false;
  #onArrival: ((arrival: Arrival) => void) | undefined;
  #onMain: (arrival: Arrival) => void = () => {};
  #onFailure: (error: unknown) => void = () => {};
  /** Nothing more will come: the address was a file or a pipe, which is one connection. */
  #isExhausted = false;

  constructor(listener: Listener, options: IntakeOptions) {
    this.#listener = listener;
    this.#options = options;
  }

  /** Waits for the main connection of a migration. @throws what `accept` throws */
  main(): Promise<Arrival> {
    return new Promise((resolve, reject) => {
      this.#onMain = resolve;
      this.#onFailure = reject;
      void this.#acceptAll();
    });
  }

  /** Calls `admit` with each further connection, also with those that came before the main one. */
  forEach(admit: (arrival: Arrival) => void): void {
    this.#onArrival = admit;
    for (const arrival of this.#waiting.splice(0)) if (!arrival.isTaken) admit(arrival);
  }

  /** Waits for the first bytes of an arrival, as long as it may be silent. Refuses it if they do not come. */
  async identify(arrival: Arrival): Promise<Opening | undefined> {
    this.#unknown++;
    const opening = await this.#within(arrival.identify());
    this.#unknown--;
    if (opening !== undefined) return opening;
    if (!arrival.isTaken) {
      this.refuse(arrival, arrival.connection.isOver ? 'it ended before it sent anything' : 'it sent nothing');
    }
    return undefined;
  }

  /** Resolves when the first bytes of all connections are known that the source made before it sent what has been read. */
  async settled(): Promise<void> {
    // The system has accepted them already, in this order.
    for (let turn = 0; turn < 3; turn++) await takeTurn();
    const { clock } = this.#options;
    const end = clock.now() + patienceMs;
    while (this.#unknown > 0 && clock.now() < end) await clock.sleep(pollMs);
    // Whoever waits for them takes them first.
    await takeTurn();
  }

  /** Closes a connection that is not part of the migration. */
  refuse(arrival: Arrival, reason: string): void {
    arrival.refuse();
    if (this.#isClosed) return;
    this.#options.onRefused?.(arrival.connection.name, reason);
    this.#endIfAlone();
  }

  /** Stops listening, and closes what is not part of the migration. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const wait of this.#waits) wait.abort();
    for (const arrival of this.#waiting.splice(0)) if (!arrival.isTaken) arrival.refuse();
    await this.#listener.close();
  }

  async #acceptAll(): Promise<void> {
    try {
      for (;;) {
        const connection = await this.#listener.accept();
        if (connection === undefined) break;
        const arrival = new Arrival(connection);
        if (this.#isClosed) arrival.refuse();
        else this.#take(arrival);
      }
      this.#isExhausted = true;
      for (const each of this.#waiting) {
        const isLost = each.opening === 'page' || each.opening === 'channel';
        if (isLost && !each.isTaken && !this.#hasMain) this.refuse(each, 'Not a migration stream');
      }
      this.#endIfAlone();
    } catch (error) {
      this.#onFailure(error);
    }
  }

  #take(arrival: Arrival): void {
    if (this.#onArrival !== undefined) return void this.#onArrival(arrival);
    this.#waiting.push(arrival);
    if (!this.#hasMain) void this.#lookFor(arrival);
  }

  /** Ends the waiting for a main connection if none can come any more. */
  #endIfAlone(): void {
    if (!this.#isExhausted || this.#hasMain || this.#waiting.some(({ isTaken }) => !isTaken)) return;
    this.#onFailure(new PeerError('Not a migration stream'));
  }

  /** Finds out whether an arrival is the main connection, as long as there is none. */
  async #lookFor(arrival: Arrival): Promise<void> {
    const opening = await this.identify(arrival);
    if (opening === undefined || this.#hasMain || arrival.isTaken) return;
    if (opening === 'stream' || opening === 'recovery') {
      this.#hasMain = true;
      arrival.isTaken = true;
      this.#waiting.splice(this.#waiting.indexOf(arrival), 1);
      this.#onMain(arrival);
    } else if (opening === 'other' || this.#isExhausted) this.refuse(arrival, 'Not a migration stream');
    else await this.#expire(arrival, opening);
  }

  /** A channel may wait for its main connection as long as a silent connection may. */
  async #expire(arrival: Arrival, opening: 'channel' | 'page'): Promise<void> {
    await this.#within(new Promise(() => {}));
    if (this.#hasMain || arrival.isTaken) return;
    const what = opening === 'channel' ? 'it is a multifd channel' : 'it may be a preempt channel';
    this.refuse(arrival, `${what} without a main connection`);
  }

  /** Waits for `work`, at most as long as a connection may be silent. */
  async #within<Result>(work: Promise<Result>): Promise<Result | undefined> {
    const { clock, setupTimeoutMs } = this.#options;
    const wait = new AbortController();
    this.#waits.add(wait);
    const late = clock.sleep(setupTimeoutMs, wait.signal).then(
      () => undefined,
      () => undefined,
    );
    try {
      return await Promise.race([work, late]);
    } finally {
      this.#waits.delete(wait);
      wait.abort();
    }
  }
}
