/** A connection whose first bytes were looked at before it is read. It may stay silent meanwhile. */
import type { Connection } from './connection.ts';

export class PeekedConnection implements Connection {
  readonly size = undefined;
  readonly #line: Connection;
  readonly #bytes: Uint8Array;
  #length = 0;
  /** How many of the bytes that were looked at have been read. */
  #passed = 0;
  /** The look that is under way, or its result: bytes so far, or the end. */
  #look: Promise<void> | undefined;
  #hasEnded = false;
  #failure: { error: unknown } | undefined;

  /** `most`: the most bytes that can be looked at. */
  constructor(line: Connection, most: number) {
    this.#line = line;
    this.#bytes = new Uint8Array(most);
  }

  get name(): string {
    return this.#line.name;
  }

  get canRead(): boolean {
    return this.#line.canRead;
  }

  get canWrite(): boolean {
    return this.#line.canWrite;
  }

  get method(): string {
    return this.#line.method;
  }

  /** The bytes that have been looked at. */
  get head(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** The peer has ended the line, or it broke, while it was looked at. */
  get isOver(): boolean {
    return this.#hasEnded || this.#failure !== undefined;
  }

  /** Looks at the bytes that come next, and adds them to {@link head}. Resolves when there are some, or at the end. */
  look(): Promise<void> {
    this.#look ??= this.#readMore().finally(() => {
      this.#look = undefined;
    });
    return this.#look;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    // A look that nobody waits for any more has a read pending.
    while (this.#look !== undefined && this.#passed === this.#length) await this.#look;
    if (this.#passed < this.#length) {
      const piece = this.#bytes.subarray(this.#passed, Math.min(this.#length, this.#passed + target.length));
      target.set(piece);
      this.#passed += piece.length;
      return piece.length;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#hasEnded ? 0 : this.#line.read(target, position);
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#line.write(bytes);
  }

  end(): Promise<void> {
    return this.#line.end();
  }

  destroy(): void {
    this.#line.destroy();
  }

  close(): Promise<void> {
    return this.#line.close();
  }

  async #readMore(): Promise<void> {
    try {
      const count = await this.#line.read(this.#bytes.subarray(this.#length), this.#length);
      this.#length += count;
      if (count === 0) this.#hasEnded = true;
    } catch (error) {
      this.#failure = { error };
    }
  }
}
