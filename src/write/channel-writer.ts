/** A multifd channel that is written: what it is given leaves in that order, while the next is being made ready. */
import { type ByteSink, requireSink } from '../io/byte-source.ts';
import type { PageEncoder } from '../io/page-codec.ts';

/** What went through a channel. */
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
  /** Bytes that it was given, uncompressed. */
  load = 0;
  readonly #sink: ByteSink;
  #tail: Promise<void> = Promise.resolve();
  /** Bytes that are being made. */
  #making: Promise<unknown> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  /** Called when the channel fails. */
  onFailure: () => void = () => {};

  /** @throws TypeError for what is not a sink. */
  constructor(sink: ByteSink, encoder: PageEncoder | undefined) {
    requireSink(sink);
    this.#sink = sink;
    this.encoder = encoder;
  }

  /**
   * Has bytes made when those before are written, and writes them. Done when they are, or when the channel has failed:
   * then nothing is made any more, and {@link throwFailure} throws.
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

  /** Done when all that it was given is written, or it has failed. */
  get settled(): Promise<void> {
    return this.#tail;
  }

  /** Stops compressing, and lets go of the compressor's memory; a sink may still be at the bytes that it was given. */
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
