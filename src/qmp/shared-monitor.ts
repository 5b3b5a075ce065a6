/**
 * One connection to a monitor, passed on to many clients. QEMU talks to one client at a time; this one talks to all.
 *
 *     client 1 ── greeting, negotiation ──→ session ─┐                 ┌─→ in band, a few at a time, in turns
 *     client 2 ── greeting, negotiation ──→ session ─┼─→ QmpClient ────┤
 *     client 3 ── greeting, negotiation ──→ session ─┘   own ids       └─→ out of band, at once
 *                       ←── events go to all that have negotiated ───
 *
 * Each client negotiates for itself, and its commands run one after another. QEMU itself checks commands and arguments, so
 * its errors pass unchanged.
 */
import { type SchemaCommand, schemaOf } from '../schema/qapi/schema.ts';
import { checkArguments } from './check-arguments.ts';
import type { QmpClient } from './client.ts';
import type { JsonObject } from './json-value.ts';
import { QmpError } from './qmp-error.ts';
import { QmpSession, type SessionHost, type WriteMessage } from './session.ts';

/** QEMU stops reading when eight commands wait, and then commands out of band would wait, too. */
const maxInBand = 7;

/** A monitor for many clients. */
export class SharedMonitor implements SessionHost {
  readonly #sessions = new Set<QmpSession>();
  readonly #queue: (() => void)[] = [];
  #running = 0;

  /** @param client has negotiated; it may be used besides */
  constructor(readonly client: QmpClient) {
    client.subscribe((_, message) => {
      for (const session of this.#sessions) session.event(message);
    });
  }

  /** Greets a new client. `write` takes one message, as that of a server does. */
  connect(write: WriteMessage): QmpSession {
    const session = new QmpSession(this, write);
    this.#sessions.add(session);
    return session;
  }

  /** Forgets a client. What it began runs on, without an answer. */
  disconnect(session: QmpSession): void {
    this.#sessions.delete(session);
    session.close();
  }

  /** That of the monitor itself. */
  get greeting(): JsonObject {
    return this.client.greeting;
  }

  /** Checks the arguments of qmp_capabilities. Returns what is to be enabled. @throws QmpError */
  negotiate(given: JsonObject): readonly string[] {
    const schema = schemaOf('10.0');
    const command = schema.commands.get('qmp_capabilities') as SchemaCommand;
    const { enable = [] } = checkArguments(schema, command, given);
    const wanted = enable as string[];
    if (wanted.includes('oob') && !this.client.hasOob) throw new QmpError('this monitor has no capability oob');
    return wanted;
  }

  /** Passes a command on. @throws QmpError with the monitor's own text; PeerError if the line breaks */
  async execute(command: string, given: JsonObject, isOob: boolean): Promise<unknown> {
    if (isOob) return this.client.executeOob<string>(command, given);
    if (this.#running === maxInBand) await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#running++;
    try {
      return await this.client.execute<string>(command, given);
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
