/**
 * One client of a QMP server, without sockets: bytes in, texts out.
 *
 *     client                                server
 *        │ ←──────────── {"QMP": …} ─────────── │   the greeting
 *        │ ─── qmp_capabilities, enable: oob ─→ │   negotiation: no other command before it
 *        │ ←──────────── {"return": {}} ─────── │
 *        │ ─── execute, id: 1 ────────────────→ │   one after another, answered in order
 *        │ ─── exec-oob, id: 2 ───────────────→ │   at once, beside them
 *        │ ←──────────── return, id: 2 ──────── │
 *        │ ←──────────── {"event": …} ───────── │   at any time
 *        │ ←──────────── return, id: 1 ──────── │
 *
 * While a command runs, no more is read from its client, or with oob up to eight commands. While a client does not read
 * its answers, none of its commands is begun, and no more is read from it.
 */
import type { Descriptors } from '../io/connection.ts';
import type { JsonMessage } from './json-parser.ts';
import { JsonReader } from './json-reader.ts';
import { isObject, type JsonObject, type JsonValue, printJson } from './json-value.ts';
import { QmpError } from './qmp-error.ts';

/** Commands that wait while another one runs, if oob is enabled. */
const maxWaiting = 8;

/** Takes a message for the client. A promise resolves when the client has read enough to be asked for more. */
export type WriteMessage = (text: string) => unknown;

/** What a session is a client of: a server, or a monitor that is shared. */
export interface SessionHost {
  /** What a client is greeted with. */
  readonly greeting: JsonObject;
  /** Checks the arguments of qmp_capabilities. Returns what is to be enabled. @throws QmpError */
  negotiate(given: JsonObject): readonly string[];
  /**
   * Runs a command. What it returns, or resolves with, is the answer.
   * @throws QmpError
   */
  execute(command: string, given: JsonObject, isOob: boolean, origin: CommandOrigin): unknown;
}

/** Where a command came from. */
export interface CommandOrigin {
  /** What stands for its monitor, which clients use one after another. */
  readonly monitor: object;
  /** Takes the descriptor that came with it, which the taker closes. */
  takeDescriptor(): number | undefined;
}

/** A message, and the descriptors that had come by then. */
interface Received {
  readonly message: JsonMessage;
  readonly descriptors: Descriptors | undefined;
}

interface Request {
  readonly command: string;
  readonly arguments: JsonObject;
  readonly isOob: boolean;
}

/** A client of a host. */
export class QmpSession {
  readonly #reader = new JsonReader((message) => this.#take(message));
  readonly #waiting: Received[] = [];
  /** The last descriptors that came, and earlier ones, which commands that wait may take. */
  #descriptors: Descriptors | undefined;
  readonly #earlier: Descriptors[] = [];
  #isRunning = false;
  /** Answers and events that the client has not read. */
  #unread = 0;
  #isNegotiated = false;
  #hasOob = false;
  #isClosed = false;
  #wake: (() => void) | undefined;

  /**
   * @param write takes a message, which ends with CR LF. If it returns a promise, the client is too slow: no command is
   *   begun until that has resolved
   * @param monitor stands for the monitor that it is a client of
   */
  constructor(
    readonly host: SessionHost,
    readonly write: WriteMessage,
    readonly monitor: object = {},
  ) {
    this.#send({ QMP: host.greeting });
  }

  /**
   * Takes bytes from the client, with the descriptors that came with them, and answers. Resolves as soon as more should be
   * read.
   */
  async receive(bytes: Uint8Array, descriptors?: Descriptors): Promise<void> {
    if (descriptors !== undefined) {
      if (this.#descriptors !== undefined) this.#earlier.push(this.#descriptors);
      this.#descriptors = descriptors;
    }
    this.#reader.push(bytes);
    this.#run();
    const most = () => (this.#hasOob ? maxWaiting - 1 : 0);
    const isBusy = () => this.#unread > 0 || this.#waiting.length > most() || (this.#isRunning && !this.#hasOob);
    while (!this.#isClosed && isBusy()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Tells the client of an event, unless it is still negotiating. */
  event(message: object): void {
    if (this.#isNegotiated) this.#send(message);
  }

  /** The client has gone. Commands that wait are forgotten; what runs goes on without an answer. */
  close(): void {
    this.#isClosed = true;
    this.#waiting.length = 0;
    this.#descriptors?.close();
    this.#closeEarlier();
    this.#wake?.();
  }

  #closeEarlier(): void {
    for (const descriptors of this.#earlier.splice(0)) descriptors.close();
  }

  #send(message: object): void {
    if (this.#isClosed) return;
    const drained = this.write(`${printJson(message)}\r\n`);
    if (!(drained instanceof Promise)) return;
    this.#unread++;
    const goOn = () => {
      this.#unread--;
      this.#run();
    };
    void drained.then(goOn, goOn);
  }

  #take(message: JsonMessage): void {
    const received = { message, descriptors: this.#descriptors };
    if (this.#hasOob && 'value' in message && isOutOfBand(message.value)) this.#execute(received);
    else this.#waiting.push(received);
  }

  /** Runs what waits, until something takes time or the client is too slow. */
  #run(): void {
    while (!this.#isRunning && this.#unread === 0) {
      const received = this.#waiting.shift();
      if (received === undefined) break;
      const pending = this.#execute(received);
      if (pending === undefined) continue;
      this.#isRunning = true;
      void pending.then(() => {
        this.#isRunning = false;
        this.#run();
      });
    }
    if (!this.#isRunning && this.#waiting.length === 0) this.#closeEarlier();
    this.#wake?.();
  }

  /** Runs a request and answers. Returns a promise only if it takes time. */
  #execute({ message, descriptors }: Received): Promise<void> | undefined {
    const id = 'value' in message && isObject(message.value) ? message.value.id : undefined;
    try {
      if ('error' in message) throw new QmpError(message.error);
      const result = this.#dispatch(message.value, descriptors);
      if (!(result instanceof Promise)) {
        this.#send({ return: result ?? {}, id });
        return undefined;
      }
      return result.then(
        (value) => this.#send({ return: value ?? {}, id }),
        (error: unknown) => this.#refuse(error, id),
      );
    } catch (error) {
      this.#refuse(error, id);
      return undefined;
    }
  }

  #refuse(error: unknown, id: JsonValue | undefined): void {
    const { message } = error as Error;
    const errorClass = error instanceof QmpError ? error.errorClass : 'GenericError';
    this.#send({ id, error: { class: errorClass, desc: message } });
  }

  #dispatch(value: JsonValue, descriptors: Descriptors | undefined): unknown {
    const request = readRequest(value, this.#hasOob);
    const { command: name } = request;
    if (!this.#isNegotiated && name !== 'qmp_capabilities') {
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound');
    }
    if (name !== 'qmp_capabilities') {
      const origin = { monitor: this.monitor, takeDescriptor: () => descriptors?.take() };
      return this.host.execute(name, request.arguments, request.isOob, origin);
    }
    if (request.isOob) throw new QmpError(`The command ${name} does not support OOB`);
    const enabled = this.host.negotiate(request.arguments);
    if (this.#isNegotiated) {
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    }
    this.#hasOob = enabled.includes('oob');
    this.#isNegotiated = true;
    return undefined;
  }
}

const isOutOfBand = (value: JsonValue) =>
  isObject(value) && Object.hasOwn(value, 'exec-oob') && !Object.hasOwn(value, 'execute');

/** @throws QmpError for a message that is not a request */
function readRequest(value: JsonValue, hasOob: boolean): Request {
  if (!isObject(value)) throw new QmpError('QMP input must be a JSON object');
  let run: string | undefined;
  for (const [name, member] of Object.entries(value)) {
    if (name === 'execute' || (name === 'exec-oob' && hasOob)) {
      if (typeof member !== 'string') throw new QmpError(`QMP input member '${name}' must be a string`);
      if (run !== undefined) throw new QmpError("QMP input member 'execute' clashes with 'exec-oob'");
      run = name;
    } else if (name === 'arguments') {
      if (!isObject(member)) throw new QmpError("QMP input member 'arguments' must be an object");
    } else if (name !== 'id') throw new QmpError(`QMP input member '${name}' is unexpected`);
  }
  if (run === undefined) throw new QmpError("QMP input lacks member 'execute'");
  const given = (value.arguments ?? {}) as JsonObject;
  return { command: value[run] as string, arguments: given, isOob: run === 'exec-oob' };
}
