/**
 * Clients of a QMP server over lines. As in QEMU, a monitor has one client at a time: the next one is greeted when it has
 * gone.
 */
import type { Connection, Listener } from '../io/connection.ts';
import type { QmpServer } from './server.ts';

/** Bytes read at a time. */
const pieceBytes = 64 << 10;
/** Answers and events that may wait for a client that does not read them. More, and it is given up. */
const mostWaiting = 64 << 20;
/** Answers that may wait before no more of its commands are read. */
const manyWaiting = 1 << 20;

/** What a client is sent, in order. */
class Outbox {
  readonly #line: Connection;
  #waiting = 0;
  #sent: Promise<void> = Promise.resolve();

  constructor(line: Connection) {
    this.#line = line;
  }

  write(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.#waiting += bytes.length;
    if (this.#waiting > mostWaiting) this.#line.destroy();
    this.#sent = this.#sent
      .then(() => this.#line.write(bytes))
      .then(
        () => {
          this.#waiting -= bytes.length;
        },
        // The reader notices that the line is broken.
        () => {},
      );
  }

  /** Resolves when little is left to be sent. */
  async room(): Promise<void> {
    if (this.#waiting > manyWaiting) await this.#sent;
  }

  /** Resolves when everything was sent, or the line has broken. */
  get isSent(): Promise<void> {
    return this.#sent;
  }
}

/** Serves one client until it leaves. `flush` resolves when all answers so far have left. */
function serveClient(server: QmpServer, line: Connection): { gone: Promise<void>; flush: () => Promise<void> } {
  const outbox = new Outbox(line);
  const session = server.connect((text) => outbox.write(text));
  const talk = async () => {
    const buffer = new Uint8Array(pieceBytes);
    try {
      for (let at = 0; ; ) {
        const count = await line.read(buffer, at);
        if (count === 0) break;
        at += count;
        await session.receive(buffer.subarray(0, count));
        await outbox.room();
      }
      await outbox.isSent;
    } catch {
      // It broke off.
    } finally {
      server.disconnect(session);
      line.destroy();
    }
  };
  return { gone: talk(), flush: () => outbox.isSent };
}

/** A monitor: a listener, and its client. */
export interface Monitor {
  /** Resolves when all answers so far have left. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Serves one client after another. */
export function serveMonitor(server: QmpServer, listener: Listener): Monitor {
  let flush: () => Promise<void> = () => Promise.resolve();
  let present: Connection | undefined;
  const serve = async () => {
    for (;;) {
      const line = await listener.accept();
      if (line === undefined) return;
      present = line;
      const client = serveClient(server, line);
      flush = client.flush;
      await client.gone;
    }
  };
  void serve();
  return {
    flush: () => flush(),
    async close() {
      await listener.close();
      present?.destroy();
    },
  };
}
