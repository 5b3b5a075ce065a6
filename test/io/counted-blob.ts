/** A Blob that counts how often each of its bytes is read. */

export interface CountedBlobOptions {
  name?: string;
  /** The kind of stream that the Blob has. Default `byob`. */
  stream?: 'byob' | 'default' | 'none';
  /** The most bytes of a chunk of the stream. Default 100,000. */
  chunkBytes?: number;
  /** Once this returns an error, all reads fail with it, and streams with another one. */
  failure?: () => Error | undefined;
}

export class CountedBlob {
  readonly name: string;
  readonly stream?: () => unknown;
  /** How often each byte was read. */
  readonly counts: Uint8Array;
  /** Slices and chunks that were read, as [start, end). */
  readonly slices: [number, number][] = [];
  readonly chunks: [number, number][] = [];
  /** Streams that were opened and neither read to their end nor cancelled. */
  openStreams = 0;
  readonly #bytes: Uint8Array;
  readonly #options: CountedBlobOptions;

  constructor(bytes: Uint8Array, options: CountedBlobOptions = {}) {
    this.#bytes = bytes;
    this.#options = options;
    this.name = options.name ?? 'counted';
    this.counts = new Uint8Array(bytes.length);
    if (options.stream !== 'none') this.stream = () => this.slice().stream?.();
  }

  get size(): number {
    return this.#bytes.length;
  }

  /** As a File for a function that takes one. */
  get file(): File {
    return this as unknown as File;
  }

  /** The most often that any byte was read. */
  get most(): number {
    return this.counts.reduce((most, count) => Math.max(most, count), 0);
  }

  /** Bytes that were never read. */
  get unread(): number {
    return this.counts.reduce((sum, count) => sum + (count === 0 ? 1 : 0), 0);
  }

  slice(start = 0, end = this.size) {
    const [from, to] = [Math.min(start, this.size), Math.min(end, this.size)];
    const { stream = 'byob' } = this.#options;
    return {
      size: to - from,
      slice: (a = 0, b = to - from) => this.slice(from + a, from + b),
      arrayBuffer: async () => {
        const failure = this.#options.failure?.();
        if (failure !== undefined) throw failure;
        this.slices.push([from, to]);
        return this.#count(from, to).slice().buffer as ArrayBuffer;
      },
      ...(stream === 'none' ? {} : { stream: () => this.#stream(from, to) }),
    };
  }

  arrayBuffer(): Promise<ArrayBuffer> {
    return this.slice().arrayBuffer();
  }

  #count(from: number, to: number): Uint8Array {
    for (let at = from; at < to; at++) this.counts[at] = (this.counts[at] as number) + 1;
    return this.#bytes.subarray(from, to);
  }

  #stream(from: number, to: number): ReadableStream<Uint8Array> {
    const { stream, chunkBytes = 100_000, failure } = this.#options;
    let at = from;
    this.openStreams++;
    const next = (most: number) => {
      if (failure?.() !== undefined) throw new TypeError('network error');
      const end = Math.min(to, at + Math.min(most, chunkBytes));
      if (end > at) this.chunks.push([at, end]);
      const bytes = this.#count(at, end);
      at = end;
      if (bytes.length === 0) this.openStreams--;
      return bytes;
    };
    const cancel = () => {
      this.openStreams--;
    };
    if (stream === 'default') {
      return new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            const bytes = next(chunkBytes);
            if (bytes.length === 0) controller.close();
            else controller.enqueue(bytes.slice());
          },
          cancel,
        },
        { highWaterMark: 0 },
      );
    }
    return new ReadableStream({
      type: 'bytes',
      pull(controller) {
        const request = controller.byobRequest;
        const view = request?.view as Uint8Array | undefined;
        if (request == null || view === undefined) throw new Error('expected a reader with its own buffer');
        const bytes = next(view.byteLength);
        if (bytes.length === 0) {
          controller.close();
          request.respond(0);
        } else {
          new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(bytes);
          request.respond(bytes.length);
        }
      },
      cancel,
    }) as ReadableStream<Uint8Array>;
  }
}
