/** A Blob or File (browsers, Node, Deno, Bun) as a ByteSource. */
import { asyncDispose } from '../vm/auto-closed.ts';
import type { OpenedSource } from './byte-source.ts';
import type { BlobLike } from './platform.ts';

export class BlobSource implements OpenedSource {
  readonly name: string;
  readonly size: number;
  readonly #blob: BlobLike;

  constructor(blob: BlobLike, name = 'name' in blob && typeof blob.name === 'string' ? blob.name : 'blob') {
    this.#blob = blob;
    this.name = name;
    this.size = blob.size;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    const slice = await this.#blob.slice(position, position + target.length).arrayBuffer();
    target.set(new Uint8Array(slice));
    return slice.byteLength;
  }

  async close(): Promise<void> {}

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}
