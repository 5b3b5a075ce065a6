/**
 * Turns of the event loop for work that never waits. Reads of memory and of a browser's private files are synchronous,
 * so a long series of them would otherwise delay messages and cancellation.
 */

/** Bytes between two turns, which take a few ms. */
const turnBytes = 8 << 20;

/** Waits for one turn of the event loop. Unlike a timer, it adds no delay. */
export function takeTurn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}

export class EventLoopYield {
  #bytes = 0;

  /** Counts bytes that were read. From time to time it returns a promise to wait for. */
  after(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes;
    if (this.#bytes < turnBytes) return undefined;
    this.#bytes = 0;
    return takeTurn();
  }
}
