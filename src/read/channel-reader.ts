/**
 * Drives the decoders of one multifd channel. It reads bytes through a {@link WindowReader} of its own, and decompresses
 * payloads with one decompressor that lives as long as the channel.
 */

import type { ByteSource } from '../io/byte-source.ts';
import { CodecError, type PageCodecs, type PageDecoder } from '../io/page-codec.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { InflateRequest, Need } from '../wire/byte-window.ts';
import { isNeed, type WindowBuffers, WindowReader } from './window-reader.ts';

export class ChannelReader {
  readonly reader: WindowReader;
  readonly #codecs: PageCodecs;
  #decoder: PageDecoder | undefined;

  constructor(kernel: Kernel, buffers: WindowBuffers, source: ByteSource, codecs: PageCodecs) {
    this.reader = new WindowReader(kernel, buffers, source, 0);
    this.#codecs = codecs;
  }

  /** Runs a decoder from where the one before stopped, and yields its items. */
  async *drive<Item>(decoder: Generator<Need | InflateRequest | Item, void>): AsyncGenerator<Item, void> {
    for (const step of decoder) {
      if (isNeed(step)) await this.reader.satisfy(step);
      else if (isInflateRequest(step)) await this.unpack(step);
      else yield step;
    }
  }

  /** Decompresses for a decoder. An error of the data is part of the answer. */
  async unpack(request: InflateRequest): Promise<void> {
    const { format, input, target } = request;
    try {
      if (format === 'zlib' || format === 'zstd') {
        // All channels of a set use one method, so a channel needs one decoder.
        this.#decoder ??= await this.#codecs.openDecoder(format);
        request.written = await this.#decoder.decode(input, target);
      } else {
        await this.#codecs.decodePage(format === 'zlib-page' ? 'zlib' : 'deflate', input, target);
        request.written = target.length;
      }
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      request.error = new MigrationError('bad-compressed-data', error.message, request.place);
    }
  }

  /** Frees the decompressor. */
  release(): void {
    this.#decoder?.close();
    this.#decoder = undefined;
  }

  /** Waits for a read under way: after this nothing is written to the arena. */
  async close(): Promise<void> {
    this.release();
    await this.reader.settle();
  }
}

function isInflateRequest(step: unknown): step is InflateRequest {
  return (step as { kind: string }).kind === 'unpack';
}
