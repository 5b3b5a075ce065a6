/**
 * A QMP client as small as the tests allow: in-band commands one after another, events kept in order.
 *
 * Every wait ends: with an answer, with the end of the connection, or with its timeout.
 */
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { hangGuardMs } from '../limits.ts';

export type QmpEvent = {
  event: string;
  data?: Record<string, unknown>;
  timestamp: { seconds: number; microseconds: number };
};

/** QEMU's answer to a command that failed. */
class QmpError extends Error {
  override name = 'QmpError';
  constructor(
    readonly command: string,
    readonly errorClass: string,
    readonly desc: string,
  ) {
    super(`${command}: ${desc}`);
  }
}

type Pending = { resolve: (value: unknown) => void; reject: (error: Error) => void };

export class Qmp {
  /** All events so far, oldest first. */
  readonly events: QmpEvent[] = [];
  #text = '';
  #next = 0;
  #ended: Error | undefined;
  readonly #pending = new Map<number, Pending & { command: string }>();
  readonly #watchers = new Set<() => void>();

  private constructor(readonly socket: Socket) {
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#take(chunk));
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error('QMP: the connection was closed')));
  }

  /**
   * Waits until the unix socket at `path` exists, connects to it and negotiates.
   * @param alive called between attempts; may throw to give up, e.g. when the process died
   */
  static async connect(path: string, timeout: number, alive: () => void): Promise<Qmp> {
    const until = performance.now() + timeout;
    for (;;) {
      alive();
      const socket = await new Promise<Socket | undefined>((resolve) => {
        const attempt = createConnection(path);
        attempt.once('connect', () => {
          attempt.removeAllListeners('error');
          resolve(attempt);
        });
        attempt.once('error', () => resolve(undefined));
      });
      if (socket) {
        const qmp = new Qmp(socket);
        await qmp.execute('qmp_capabilities', {}, Math.max(1, until - performance.now()));
        return qmp;
      }
      if (performance.now() > until) throw new Error(`QMP: nothing listens at ${path} after ${timeout} ms`);
      await sleep(10);
    }
  }

  /** @throws {QmpError} if QEMU refuses, {@link Error} if no answer comes within `timeout` ms. */
  async execute<T = unknown>(command: string, args: object = {}, timeout = hangGuardMs): Promise<T> {
    if (this.#ended) throw this.#ended;
    const id = this.#next++;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`QMP: no answer to ${command} in ${timeout} ms`)), timeout);
        this.#pending.set(id, { command, resolve: resolve as Pending['resolve'], reject });
        this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
      });
    } finally {
      clearTimeout(timer);
      this.#pending.delete(id);
    }
  }

  /** Waits for the first event from index `from` on that `matches`. */
  async event(matches: (event: QmpEvent) => boolean, timeout: number, from = 0): Promise<QmpEvent> {
    const until = performance.now() + timeout;
    for (;;) {
      const found = this.events.slice(from).find(matches);
      if (found) return found;
      if (this.#ended) throw this.#ended;
      const left = until - performance.now();
      if (left <= 0)
        throw new Error(
          `QMP: the event did not come within ${timeout} ms; seen: ${this.events.map((e) => e.event).join(', ')}`,
        );
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#watchers.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, left);
        this.#watchers.add(wake);
      });
    }
  }

  close(): void {
    this.socket.destroy();
  }

  #take(chunk: string): void {
    this.#text += chunk;
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      if (line.trim()) this.#receive(JSON.parse(line));
    }
  }

  #receive(message: Record<string, unknown>): void {
    if ('event' in message) {
      this.events.push(message as QmpEvent);
      for (const wake of [...this.#watchers]) wake();
      return;
    }
    const pending = this.#pending.get(message.id as number);
    if (!pending) return; // the greeting, or a late answer to a command that timed out
    if ('error' in message) {
      const { class: errorClass, desc } = message.error as { class: string; desc: string };
      pending.reject(new QmpError(pending.command, errorClass, desc));
    } else pending.resolve(message.return);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    for (const wake of [...this.#watchers]) wake();
  }
}
