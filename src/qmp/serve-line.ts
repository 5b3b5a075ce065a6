/**
 * Serves one client on a line.
 *
 *     client ──→ read 64 KiB ──→ session ──→ outbox ──→ write ──→ client
 *                    ↑ held, while the session is busy   │
 *                    └────── or the outbox is full ──────┘
 *
 * As in QEMU, a client that does not read its answers is not read from: its commands wait in its own socket. Only events
 * still come. When too many of them wait, the client is dropped.
 */
import type { Connection } from '../io/connection.ts';
import type { QmpSession, WriteMessage } from './session.ts';

/** More than this waits to be written: the client's next command waits, too. In bytes. */
const fullBytes = 1 << 18;
/**
 * A client for which more than this waits is dropped. In bytes; one message may be larger.
 * @internal exported for its test
 */
export const maxUnreadBytes = 1 << 24;
const readBytes = 65536;

/** A server, or a monitor that is shared. */
export interface SessionHub {
  /** Greets a new client. */
  connect(write: WriteMessage): QmpSession;
  /** Forgets a client. */
  disconnect(session: QmpSession): void;
}

/**
 * Greets a client, and answers it until it leaves. Other clients are never held up. Never throws: a line that breaks is
 * a client that has left.
 */
export const serveLine = (hub: SessionHub, connection: Connection): Promise<void> => serveClient(hub, connection).gone;

/** The same. `flush` resolves when all answers so far have left. */
export function serveClient(hub: SessionHub, connection: Connection): { gone: Promise<void>; flush(): Promise<void> } {
  const outbox = new Outbox(connection);
  const session = hub.connect((text) => outbox.send(text));
  const talk = async () => {
    const buffer = new Uint8Array(readBytes);
    try {
      for (let at = 0; ; ) {
        const count = await connection.read(buffer, at);
        if (count === 0) break;
        at += count;
        await session.receive(buffer.subarray(0, count), connection.takeDescriptors?.());
      }
      await outbox.drained();
      await connection.close();
    } catch {
      // The client has gone.
    } finally {
      hub.disconnect(session);
      connection.destroy();
    }
  };
  return { gone: talk(), flush: () => outbox.drained() };
}

/** What waits to be written to a client. */
class Outbox {
  #texts: string[] = [];
  #length = 0;
  #writing: Promise<void> | undefined;

  constructor(readonly connection: Connection) {}

  /**
   * Takes a text of ASCII. Returns a promise, which resolves when there is space again, if the client should not be asked for
   * more until then.
   */
  send(text: string): Promise<void> | undefined {
    if (this.#length > maxUnreadBytes) this.connection.destroy();
    this.#texts.push(text);
    this.#length += text.length;
    this.#writing ??= this.#write();
    return this.#length > fullBytes ? this.#writing : undefined;
  }

  /** Resolves when everything was written, or the line broke. */
  async drained(): Promise<void> {
    await this.#writing;
  }

  /** Writes what waits, and what comes meanwhile. Never rejects: the reader sees that the line broke. */
  async #write(): Promise<void> {
    // What is sent in the same turn leaves together.
    await Promise.resolve();
    try {
      while (this.#texts.length > 0) {
        const text = this.#texts.join('');
        this.#texts = [];
        await this.connection.write(new TextEncoder().encode(text));
        this.#length -= text.length;
      }
    } catch {
      this.connection.destroy();
      this.#texts = [];
      this.#length = 0;
    } finally {
      this.#writing = undefined;
    }
  }
}
