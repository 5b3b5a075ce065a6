/** A connection whose first bytes were looked at before it is read. It may stay silent meanwhile. */
import type { Connection } from './connection.ts';
import { WrappedConnection } from './wrapped-connection.ts';

export class PeekedConnection extends WrappedConnection {
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
    super(line);
    this.#bytes = new Uint8Array(most);
  }

  /** The bytes that have been looked at. */
  get head(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** The peer has ended the line, or it broke, while it was looked at. */
  get isOver(): boolean {
    return this.#hasEnded || this.#failure !== undefined;
  }

  /** It broke while it was looked at. */
  get hasBroken(): boolean {
    return this.#failure !== undefined;
  }

  /** Looks at the bytes that come next, and adds them to {@link head}. Resolves when there are some, or at the end. */
  look(): Promise<void> {
    this.#look ??= this.#readMore().finally(() => {
      this.#look = undefined;
    });
    return this.#look;
  }

  override async read(target: Uint8Array, position: number): Promise<number> {
    // A look that nobody waits for any more has a read pending.
    while (this.#look !== undefined && this.#passed === this.#length) await this.#look;
    if (this.#passed < this.#length) {
      const piece = this.#bytes.subarray(this.#passed, Math.min(this.#length, this.#passed + target.length));
      target.set(piece);
      this.#passed += piece.length;
      return piece.length;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#hasEnded ? 0 : this.line.read(target, position);
  }

  async #readMore(): Promise<void> {
    try {
      const count = await this.line.read(this.#bytes.subarray(this.#length), this.#length);
      this.#length += count;
      if (count === 0) this.#hasEnded = true;
    } catch (error) {
      this.#failure = { error };
    }
  }
}
