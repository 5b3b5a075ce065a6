/** Input that begins and then waits for ever. */
import { Readable } from 'node:stream';

const chunkSize = 64 * 1024;

export class StalledInput extends Readable {
  #rest: Uint8Array;

  constructor(bytes: Uint8Array) {
    super();
    this.#rest = bytes;
  }

  /** Whether all was taken. The last of it, up to the size of a pipe's buffer, may not have been read yet. */
  get isTaken(): boolean {
    return this.#rest.length === 0;
  }

  override _read(): void {
    if (this.#rest.length === 0) return;
    this.push(this.#rest.subarray(0, chunkSize));
    this.#rest = this.#rest.subarray(chunkSize);
  }
}
