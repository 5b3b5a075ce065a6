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
 * While a command runs, no more is read from its client, or with oob up to eight commands.
 */
import { checkArguments } from './check-arguments.ts';
import type { JsonMessage } from './json-parser.ts';
import { JsonReader } from './json-reader.ts';
import { isObject, type JsonObject, type JsonValue, printJson } from './json-value.ts';
import { QmpError } from './qmp-error.ts';
import type { QmpServer } from './server.ts';

/** Commands that wait while another one runs, if oob is enabled. */
const maxWaiting = 8;

interface Request {
  readonly command: string;
  readonly arguments: JsonObject;
  readonly isOob: boolean;
}

/** A client of a server. */
export class QmpSession {
  readonly #reader = new JsonReader((message) => this.#take(message));
  readonly #waiting: JsonMessage[] = [];
  #isRunning = false;
  #isNegotiated = false;
  #hasOob = false;
  #isClosed = false;
  #wake: (() => void) | undefined;

  /** @param write takes a message, which ends with CR LF */
  constructor(
    readonly server: QmpServer,
    readonly write: (text: string) => void,
  ) {
    this.#send({ QMP: { version: server.version, capabilities: ['oob'] } });
  }

  /**
   * Takes bytes from the client, and answers. Resolves as soon as more should be read.
   */
  async receive(bytes: Uint8Array): Promise<void> {
    this.#reader.push(bytes);
    this.#run();
    const most = () => (this.#hasOob ? maxWaiting - 1 : 0);
    while (!this.#isClosed && (this.#waiting.length > most() || (this.#isRunning && !this.#hasOob))) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Tells the client of an event, unless it is still negotiating. */
  event(name: string, data: object | undefined, timestamp: { seconds: number; microseconds: number }): void {
    if (this.#isNegotiated) this.#send({ timestamp, event: name, data });
  }

  /** The client has gone. Commands that wait are forgotten; what runs goes on without an answer. */
  close(): void {
    this.#isClosed = true;
    this.#waiting.length = 0;
    this.#wake?.();
  }

  #send(message: object): void {
    if (!this.#isClosed) this.write(`${printJson(message)}\r\n`);
  }

  #take(message: JsonMessage): void {
    if (this.#hasOob && 'value' in message && isOutOfBand(message.value)) this.#execute(message);
    else this.#waiting.push(message);
  }

  /** Runs what waits, until something takes time. */
  #run(): void {
    while (!this.#isRunning) {
      const message = this.#waiting.shift();
      if (message === undefined) break;
      const pending = this.#execute(message);
      if (pending === undefined) continue;
      this.#isRunning = true;
      void pending.then(() => {
        this.#isRunning = false;
        this.#run();
      });
    }
    this.#wake?.();
  }

  /** Runs a request and answers. Returns a promise only if it takes time. */
  #execute(message: JsonMessage): Promise<void> | undefined {
    const id = 'value' in message && isObject(message.value) ? message.value.id : undefined;
    try {
      if ('error' in message) throw new QmpError(message.error);
      const result = this.#dispatch(message.value);
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

  #dispatch(value: JsonValue): unknown {
    const request = readRequest(value, this.#hasOob);
    const { command: name } = request;
    if (!this.#isNegotiated && name !== 'qmp_capabilities') {
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound');
    }
    const command = this.server.command(name);
    if (command === undefined) throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound');
    if (request.isOob && !command.isOob) throw new QmpError(`The command ${name} does not support OOB`);
    if (this.#isNegotiated && name === 'qmp_capabilities') {
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    }
    const given = checkArguments(this.server.schema, command, request.arguments);
    return name === 'qmp_capabilities' ? this.#negotiate(given) : this.server.run(name, given);
  }

  #negotiate({ enable = [] }: JsonObject): void {
    this.#hasOob = (enable as string[]).includes('oob');
    this.#isNegotiated = true;
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
