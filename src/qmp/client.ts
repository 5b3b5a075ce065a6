/**
 * A QMP client over any line.
 *
 *     client                                    server
 *        │ ←──────────── {"QMP": …} ───────────── │   within greetingTimeoutMs, or another client has the monitor
 *        │ ─── qmp_capabilities, enable: oob ───→ │   if the greeting offers it
 *        │ ─── execute, id: 1 ──────────────────→ │   any number at a time; answers come by id
 *        │ ←──────────── event ────────────────── │   to all who listen
 *        │ ←──────────── return, id: 1 ────────── │
 *
 * Members, values, events and commands that this release of vmferry does not know pass through unharmed.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import type { JsonMessage } from './json-parser.ts';
import { JsonReader } from './json-reader.ts';
import { isObject, type JsonObject, type JsonValue, plainValue, printExactJson } from './json-value.ts';
import { QmpError } from './qmp-error.ts';
import type { QmpCommands, QmpEvents } from './types/commands.ts';

/** The commands whose arguments are checked by tsc. */
export type CommandName = keyof QmpCommands;

/** The arguments of a command: those of the schema, or any object for other commands. */
export type CommandArguments<C extends string> = C extends CommandName
  ? QmpCommands[C]['arguments'] extends Record<string, never>
    ? [given?: QmpCommands[C]['arguments']]
    : Record<string, never> extends QmpCommands[C]['arguments']
      ? [given?: QmpCommands[C]['arguments']]
      : [given: QmpCommands[C]['arguments']]
  : [given?: object];

/** What a command returns. */
export type CommandReturns<C extends string> = C extends CommandName ? QmpCommands[C]['returns'] : unknown;

/** An event. Its data is that of the schema if the schema has the event. */
export type QmpEvent<E extends string = string> = {
  readonly event: E;
  readonly data: E extends keyof QmpEvents ? QmpEvents[E] : Record<string, unknown> | undefined;
  /** When it happened, by the clock of QEMU's host. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
};

/** The monitor did not greet: QEMU lets one client at a time talk to it. */
export class MonitorBusyError extends PeerError {}

/** Options of a client. */
export interface QmpClientOptions {
  /** Ends all waiting. */
  readonly signal?: AbortSignal | undefined;
  /** How long the greeting may take. Default: 1,000 ms. */
  readonly greetingTimeoutMs?: number;
  readonly clock?: Clock;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** A client of a QMP server. */
export class QmpClient {
  /** What the server said about itself. */
  readonly greeting: JsonObject;
  /** Whether commands out of band can be sent. */
  readonly hasOob: boolean;
  readonly #line: MessageLine;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent, message: JsonObject) => void>();
  #next = 0;
  #ended: Error | undefined;
  readonly #closed: Promise<void>;

  private constructor(line: MessageLine, greeting: JsonObject) {
    this.#line = line;
    this.greeting = greeting;
    this.hasOob = Array.isArray(greeting.capabilities) && greeting.capabilities.includes('oob');
    this.#closed = this.#read();
  }

  /**
   * Waits for the greeting, and negotiates.
   * @throws MonitorBusyError if no greeting comes in time; PeerError if the line breaks, or what comes is not QMP
   */
  static async connect(connection: Connection, options: QmpClientOptions = {}): Promise<QmpClient> {
    const line = new MessageLine(connection);
    const { signal, greetingTimeoutMs = 1000, clock = systemClock } = options;
    const abort = () => connection.destroy();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      signal?.throwIfAborted();
      const client = new QmpClient(line, await inTime(greetingOn(line), clock, greetingTimeoutMs, signal));
      await client.execute('qmp_capabilities', client.hasOob ? { enable: ['oob'] } : {});
      return client;
    } catch (error) {
      connection.destroy();
      signal?.throwIfAborted();
      throw error;
    }
  }

  /**
   * Runs a command, and returns what it returns. Integers that a number cannot hold exactly are bigints.
   * @throws QmpError if the server answers with an error; PeerError if the line breaks
   */
  async execute<C extends CommandName | (string & {})>(
    command: C,
    ...given: CommandArguments<C>
  ): Promise<CommandReturns<C>> {
    return (await this.#request('execute', command, given[0])) as CommandReturns<C>;
  }

  /** Runs a command beside those that wait or run. Only some commands may. @throws as `execute` */
  async executeOob<C extends CommandName | (string & {})>(
    command: C,
    ...given: CommandArguments<C>
  ): Promise<CommandReturns<C>> {
    return (await this.#request('exec-oob', command, given[0])) as CommandReturns<C>;
  }

  /** Tells `listener` of each event from now on. Returns what ends that. */
  subscribe(listener: (event: QmpEvent, message: JsonObject) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Waits for the next event of that name that `where` accepts.
   * @throws the reason of `signal`; PeerError if the line breaks
   */
  nextEvent<E extends keyof QmpEvents | (string & {})>(
    name: E,
    { where = () => true, signal }: { where?: (data: QmpEvent<E>['data']) => boolean; signal?: AbortSignal } = {},
  ): Promise<QmpEvent<E>> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        unsubscribe();
        signal?.removeEventListener('abort', abort);
        settle();
      };
      const abort = () => end(() => reject(signal?.reason));
      const unsubscribe = this.subscribe((event) => {
        if (event.event === name && where(event.data as never)) end(() => resolve(event as QmpEvent<E>));
      });
      if (signal?.aborted === true) abort();
      else signal?.addEventListener('abort', abort, { once: true });
      void this.#closed.then(() => end(() => reject(this.#ended)));
    });
  }

  /** Resolves when the line has ended. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Ends the line. Commands without an answer reject. */
  async close(): Promise<void> {
    this.#ended ??= new PeerError('the connection to the monitor was closed');
    this.#line.connection.destroy();
    await this.#closed;
  }

  async #request(how: 'execute' | 'exec-oob', command: string, given: object | undefined): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#next++;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    answer.catch(() => {});
    const request = { [how]: command, ...(given === undefined ? {} : { arguments: given }), id };
    await this.#line.send(request).catch((error: Error) => this.#end(error));
    return answer;
  }

  async #read(): Promise<void> {
    try {
      for (let message = await this.#line.next(); message !== undefined; message = await this.#line.next()) {
        this.#take(message);
      }
      this.#end(new PeerError('the monitor ended the connection'));
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #take(message: JsonObject): void {
    const pending = typeof message.id === 'number' ? this.#pending.get(message.id) : undefined;
    if (typeof message.event === 'string') {
      const event = plainValue(message) as QmpEvent;
      for (const listener of [...this.#listeners]) listener(event, message);
    } else if (pending !== undefined) {
      this.#pending.delete(message.id as number);
      if (isObject(message.error)) {
        pending.reject(new QmpError(String(message.error.desc), String(message.error.class)));
      } else pending.resolve(plainValue(message.return as JsonValue));
    }
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
    this.#line.connection.destroy();
  }
}

/** The greeting. Events before it are not for this client. @throws PeerError if something else comes */
async function greetingOn(line: MessageLine): Promise<JsonObject> {
  for (;;) {
    const message = await line.next();
    if (isObject(message?.QMP)) return message.QMP;
    if (typeof message?.event !== 'string') throw new PeerError('expected the greeting of a QMP server');
  }
}

/** Messages on a line, one at a time. */
class MessageLine {
  readonly #reader = new JsonReader((message) => this.#messages.push(message));
  readonly #messages: JsonMessage[] = [];
  readonly #buffer = new Uint8Array(65536);
  #position = 0;
  #sending: Promise<void> = Promise.resolve();

  constructor(readonly connection: Connection) {}

  /** The next message; undefined at the end. @throws PeerError for what is not JSON */
  async next(): Promise<JsonObject | undefined> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) {
        if ('error' in message) throw new PeerError(`the monitor sent what is not QMP: ${message.error}`);
        if (isObject(message.value)) return message.value;
        continue;
      }
      const count = await this.connection.read(this.#buffer, this.#position);
      if (count === 0) return undefined;
      this.#position += count;
      this.#reader.push(this.#buffer.subarray(0, count));
    }
  }

  send(message: object): Promise<void> {
    const bytes = new TextEncoder().encode(`${printExactJson(message)}\n`);
    const sent = this.#sending.then(() => this.connection.write(bytes));
    this.#sending = sent.catch(() => {});
    return sent;
  }
}

async function inTime<T>(wait: Promise<T>, clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<T> {
  const controller = new AbortController();
  const late = clock.sleep(ms, signal === undefined ? controller.signal : AbortSignal.any([controller.signal, signal]));
  try {
    return await Promise.race([
      wait,
      late.then(() => {
        throw new MonitorBusyError(`no greeting came within ${ms} ms: another client holds this monitor`);
      }),
    ]);
  } finally {
    late.catch(() => {});
    wait.catch(() => {});
    controller.abort();
  }
}
