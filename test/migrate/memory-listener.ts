/** A listener whose connections the test makes. */
import type { Connection, Listener } from '../../src/io/connection.ts';
import { connectionPair } from '../../src/io/web-connection.ts';

export class MemoryListener implements Listener {
  readonly uri: string;
  readonly #waiting: Connection[] = [];
  #isClosed = false;
  #wake: () => void = () => {};

  constructor(uri = 'memory:') {
    this.uri = uri;
  }

  /** Connects to it. Returns the line of the peer. */
  connect(): Connection {
    const [here, there] = connectionPair();
    this.#waiting.push(here);
    this.#wake();
    return there;
  }

  async accept(): Promise<Connection | undefined> {
    for (;;) {
      const next = this.#waiting.shift();
      if (next !== undefined) return next;
      if (this.#isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wake();
  }
}
