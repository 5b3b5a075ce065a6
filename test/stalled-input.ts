/** Input that begins and then stalls forever. */
import { Readable } from 'node:stream';

const chunkSize = 64 * 1024;

export class StalledInput extends Readable {
  #rest: Uint8Array;

  constructor(bytes: Uint8Array) {
    super();
    this.#rest = bytes;
  }

  /**
   * Whether the pipe has taken everything. The reader may not have read the last part, up to the size of the pipe's
   * buffer.
   */
  get isTaken(): boolean {
    return this.#rest.length === 0;
  }

  override _read(): void {
    if (this.#rest.length === 0) return;
    this.push(this.#rest.subarray(0, chunkSize));
    this.#rest = this.#rest.subarray(chunkSize);
  }
}
