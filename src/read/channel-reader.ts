/**
 * Drives the decoders of one multifd channel: bytes through a {@link WindowReader} of its own, and what is compressed
 * through a decompressor that lives as long as the channel.
 */

import type { ByteSource } from '../io/byte-source.ts';
import { CodecError, type PageCodecs, type PageDecoder } from '../io/page-codec.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { InflateRequest, Need } from '../wire/byte-window.ts';
import { isWant, type WindowBuffers, WindowReader } from './window-reader.ts';

export class ChannelReader {
  readonly reader: WindowReader;
  readonly #codecs: PageCodecs;
  #decoder: PageDecoder | undefined;

  constructor(kernel: Kernel, buffers: WindowBuffers, source: ByteSource, codecs: PageCodecs) {
    this.reader = new WindowReader(kernel, buffers, source, 0);
    this.#codecs = codecs;
  }

  /** Runs a decoder, which goes on where the one before stopped, and yields its items. */
  async *drive<Item>(decoder: Generator<Need | InflateRequest | Item, void>): AsyncGenerator<Item, void> {
    for (const step of decoder) {
      if (isWant(step)) await this.reader.satisfy(step);
      else if (isUnpackWant(step)) await this.#unpack(step);
      else yield step;
    }
  }

  async #unpack(want: InflateRequest): Promise<void> {
    const { format, input, target } = want;
    try {
      if (format === 'zlib' || format === 'zstd') {
        // A set of channels has one method, so a channel has one decoder.
        this.#decoder ??= await this.#codecs.openDecoder(format);
        want.written = await this.#decoder.decode(input, target);
      } else {
        await this.#codecs.decodePage(format === 'zlib-page' ? 'zlib' : 'deflate', input, target);
        want.written = target.length;
      }
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      throw new MigrationError('bad-compressed-data', error.message, want.place);
    }
  }

  /** After this the arena is not written to. */
  async close(): Promise<void> {
    this.#decoder?.close();
    this.#decoder = undefined;
    await this.reader.settle();
  }
}

function isUnpackWant(step: unknown): step is InflateRequest {
  return (step as { kind: string }).kind === 'unpack';
}
