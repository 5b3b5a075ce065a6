/**
 * A QMP server: a schema, and what its commands do. It has any number of sessions, which share its commands and events.
 * Its schema, as clients see it, has only the commands that it answers.
 */
import { introspect, type SchemaEntity } from '../schema/qapi/introspection.ts';
import type { Schema, SchemaCommand } from '../schema/qapi/schema.ts';
import { checkArguments } from './check-arguments.ts';
import type { JsonObject } from './json-value.ts';
import { QmpError } from './qmp-error.ts';
import { type CommandOrigin, QmpSession, type SessionHost, type WriteMessage } from './session.ts';

/** Runs a command whose arguments were checked. Its result is what it returns; undefined is an empty object. */
export type Handler = (given: JsonObject, origin: CommandOrigin) => unknown;

/** What a server is made of. */
export interface QmpServerOptions {
  readonly schema: Schema;
  /** What the greeting and query-version say. */
  readonly version: { readonly qemu: { major: number; minor: number; micro: number }; readonly package: string };
  /** What each command does. Commands without a handler are unknown to clients. */
  readonly handlers: Readonly<Record<string, Handler>>;
  /** Milliseconds since 1970, for the timestamps of events. */
  now(): number;
  /** Called when the last client has gone. */
  readonly onDeserted?: () => void;
}

/** Stands for a caller without a monitor. */
const nobody: CommandOrigin = { monitor: {}, takeDescriptor: () => undefined };

/** A QMP server. */
export class QmpServer implements SessionHost {
  readonly schema: Schema;
  readonly version: QmpServerOptions['version'];
  readonly #handlers: Map<string, Handler>;
  readonly #now: () => number;
  readonly #onDeserted: () => void;
  readonly #sessions = new Set<QmpSession>();
  #entities: SchemaEntity[] | undefined;

  constructor({ schema, version, handlers, now, onDeserted = () => {} }: QmpServerOptions) {
    this.schema = schema;
    this.#onDeserted = onDeserted;
    this.version = version;
    this.#now = now;
    const names = () => [...this.#handlers.keys()].map((name) => ({ name }));
    this.#handlers = new Map<string, Handler>([
      ['qmp_capabilities', () => {}],
      ['query-version', () => version],
      ['query-commands', names],
      ['query-qmp-schema', () => this.#introspect()],
      ...Object.entries(handlers),
    ]);
    for (const name of this.#handlers.keys()) {
      if (!schema.commands.has(name)) this.#handlers.delete(name);
    }
  }

  /**
   * Greets a new client. `write` takes one message, which ends with CR LF. If it returns a promise, none of the client's
   * commands is begun until that has resolved. `monitor` stands for its monitor.
   */
  connect(write: WriteMessage, monitor: object = {}): QmpSession {
    const session = new QmpSession(this, write, monitor);
    this.#sessions.add(session);
    return session;
  }

  /** Forgets a client. */
  disconnect(session: QmpSession): void {
    this.#sessions.delete(session);
    session.close();
    if (this.#sessions.size === 0) this.#onDeserted();
  }

  /** Tells all clients of an event. */
  emit(name: string, data?: object): void {
    const ms = this.#now();
    const seconds = Math.floor(ms / 1000);
    const timestamp = { seconds, microseconds: Math.floor((ms - seconds * 1000) * 1000) };
    for (const session of this.#sessions) session.event({ timestamp, event: name, data });
  }

  /** A command that this server answers. */
  command(name: string): SchemaCommand | undefined {
    return this.#handlers.has(name) ? this.schema.commands.get(name) : undefined;
  }

  /** What a client is greeted with. */
  get greeting(): JsonObject {
    return { version: this.version, capabilities: ['oob'] };
  }

  /** Checks the arguments of qmp_capabilities. Returns what is to be enabled. @throws QmpError */
  negotiate(given: JsonObject): readonly string[] {
    const { enable = [] } = checkArguments(this.schema, this.#find('qmp_capabilities'), given);
    return enable as string[];
  }

  /** Checks the arguments of a command, and runs it. @throws QmpError */
  execute(name: string, given: JsonObject, isOob = false, origin: CommandOrigin = nobody): unknown {
    const command = this.#find(name);
    if (isOob && !command.isOob) throw new QmpError(`The command ${name} does not support OOB`);
    return this.#handlers.get(name)?.(checkArguments(this.schema, command, given), origin);
  }

  #find(name: string): SchemaCommand {
    const command = this.command(name);
    if (command === undefined) throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound');
    return command;
  }

  #introspect(): SchemaEntity[] {
    this.#entities ??= introspect(this.schema, this.#handlers.keys(), this.schema.events.keys());
    return this.#entities;
  }
}
