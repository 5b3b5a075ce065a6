/** The output of one multifd channel. Bytes are written in the given order while the next ones are prepared. */
import { type ByteSink, requireSink } from '../io/byte-source.ts';
import type { PageEncoder } from '../io/page-codec.ts';

/** What was written to a channel. */
export interface WrittenChannel {
  /** Bytes. */
  length: number;
  /** Packets of all kinds. */
  packets: number;
}

export class ChannelWriter implements WrittenChannel {
  readonly encoder: PageEncoder | undefined;
  length = 0;
  packets = 0;
  /** Bytes handed to the channel, before compression. */
  load = 0;
  readonly #sink: ByteSink;
  #tail: Promise<void> = Promise.resolve();
  /** Bytes that are being prepared. */
  #making: Promise<unknown> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  /** Called when the channel fails. */
  onFailure: () => void = () => {};

  /** @throws TypeError if `sink` is not a `ByteSink`. */
  constructor(sink: ByteSink, encoder: PageEncoder | undefined) {
    requireSink(sink);
    this.#sink = sink;
    this.encoder = encoder;
  }

  /**
   * Calls `make` once all earlier bytes are written, and writes the result. Resolves when it is written, or when the channel
   * has failed. After a failure `make` is not called, and {@link throwFailure} throws.
   */
  send(make: () => Uint8Array | Promise<Uint8Array>): Promise<void> {
    this.#tail = this.#tail.then(async () => {
      if (this.#failure !== undefined) return;
      try {
        const making = Promise.resolve(make());
        this.#making = making.catch(() => {});
        const bytes = await making;
        await this.#sink.write(bytes);
        this.length += bytes.length;
      } catch (error) {
        this.#fail(error);
      }
    });
    return this.#tail;
  }

  /** Resolves when everything that was handed over is written, or when the channel has failed. */
  get settled(): Promise<void> {
    return this.#tail;
  }

  /** Stops preparing bytes and frees the compressor. The sink may still be writing earlier bytes. */
  abandon(): void {
    this.#fail(new Error('the channel was abandoned'));
    void this.#making.then(() => this.encoder?.close());
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.onFailure();
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
