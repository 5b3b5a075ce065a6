/**
 * One listener that several users have one after another. It goes on listening between two turns: what connects then waits
 * for the next one.
 */
import type { Connection, Listener } from './connection.ts';

/** The most connections that wait for a turn. */
const mostWaiting = 64;

export class ListenerTurns {
  readonly #listener: Listener;
  /** Connections that nobody has accepted yet. */
  readonly #ready: Connection[] = [];
  /** Takes the next connection: the turn of the present user. */
  #take: ((connection: Connection | undefined) => void) | undefined;
  #failure: { error: unknown } | undefined;
  #hasEnded = false;

  constructor(listener: Listener) {
    this.#listener = listener;
    void this.#accept();
  }

  /** The URI that a peer can use. */
  get uri(): string {
    return this.#listener.uri;
  }

  /** Nothing can connect any more: it was a single connection, was closed, or has failed. */
  get hasEnded(): boolean {
    return this.#hasEnded && this.#ready.length === 0;
  }

  /** The next turn. The one before must have been closed. */
  turn(): Listener {
    let isClosed = false;
    let end = () => {};
    const closed = new Promise<undefined>((resolve) => {
      end = () => resolve(undefined);
    });
    return {
      uri: this.uri,
      accept: async () => {
        if (isClosed) return undefined;
        const connection = await Promise.race([this.#next(), closed]);
        if (!isClosed || connection === undefined) return connection;
        this.#ready.unshift(connection);
        return undefined;
      },
      close: async () => {
        isClosed = true;
        this.#take = undefined;
        end();
      },
    };
  }

  /** Stops listening. */
  async close(): Promise<void> {
    await this.#listener.close();
    for (const connection of this.#ready.splice(0)) connection.destroy();
  }

  #next(): Promise<Connection | undefined> {
    return new Promise((resolve, reject) => {
      const ready = this.#ready.shift();
      if (ready !== undefined || this.#hasEnded) {
        if (ready === undefined && this.#failure !== undefined) reject(this.#failure.error);
        else resolve(ready);
        return;
      }
      this.#take = (connection) => {
        this.#take = undefined;
        if (connection === undefined && this.#failure !== undefined) reject(this.#failure.error);
        else resolve(connection);
      };
    });
  }

  async #accept(): Promise<void> {
    try {
      for (;;) {
        const connection = await this.#listener.accept();
        if (connection === undefined) break;
        if (this.#take !== undefined) this.#take(connection);
        else if (this.#ready.length < mostWaiting) this.#ready.push(connection);
        else connection.destroy();
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#hasEnded = true;
    this.#take?.(undefined);
  }
}
