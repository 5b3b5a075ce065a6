/** A connection whose first bytes were read to find out what it is. It yields them again. */
import type { Connection } from '../io/connection.ts';

/** Reads the first `count` bytes after those of `before`; fewer only if the peer ends the line. Returns all of them. */
export async function readHead(
  connection: Connection,
  count: number,
  before: Uint8Array = new Uint8Array(),
): Promise<Uint8Array> {
  const head = new Uint8Array(count);
  head.set(before);
  let length = before.length;
  while (length < count) {
    const read = await connection.read(head.subarray(length), length);
    if (read === 0) break;
    length += read;
  }
  return head.subarray(0, length);
}

export class HeadedConnection implements Connection {
  readonly size = undefined;
  readonly #line: Connection;
  readonly #head: Uint8Array;

  constructor(line: Connection, head: Uint8Array) {
    this.#line = line;
    this.#head = head;
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

  read(target: Uint8Array, position: number): Promise<number> {
    if (position >= this.#head.length) return this.#line.read(target, position);
    const piece = this.#head.subarray(position, position + target.length);
    target.set(piece);
    return Promise.resolve(piece.length);
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
}
