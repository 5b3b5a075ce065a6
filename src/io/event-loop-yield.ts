/**
 * Turns of the event loop for work that never waits: reads of memory and of a browser's private files are done at once, so
 * that whoever reads much of them hears no message and no cancelling meanwhile.
 */

/** Bytes between two turns: a few ms of work. */
const turnBytes = 8 << 20;

/** Waits until what else there is to do has had its turn. Unlike a timer it takes no time of its own. */
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

  /** Notes that so many bytes were read; now and then there is something to wait for. */
  after(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes;
    if (this.#bytes < turnBytes) return undefined;
    this.#bytes = 0;
    return takeTurn();
  }
}
