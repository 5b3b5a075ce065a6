/**
 * Writes the preempt channel of postcopy (docs/formats/postcopy.md, "The preempt channel"): page records without a header or
 * sections. It has a window of its own to read RAM, so requested pages need not wait for the main stream.
 */
import type { ByteSink } from '../io/byte-source.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodePageRecords, maxRecord, type RecordBuffer } from '../wire/ram-record-encoder.ts';
import { encodeEos } from '../wire/ram-section.ts';
import { RamScan, ramScanArenaBytes } from './ram-scan.ts';

/** Bytes written at a time. */
const bufferBytes = 64 << 10;
/** Arena bytes that a writer needs. */
export const preemptArenaBytes = arenaBytes(bufferBytes + maxRecord) + ramScanArenaBytes;

export class PreemptWriter {
  /** Reads the pages for this channel. */
  readonly scan: RamScan;
  /** Bytes of page records so far. */
  ramBytes = 0;
  #sink: ByteSink;
  readonly #start: number;
  readonly #buffer: RecordBuffer;

  /** Allocates {@link preemptArenaBytes} in the arena of `kernel`. */
  constructor(kernel: Kernel, sink: ByteSink) {
    this.#sink = sink;
    this.#start = kernel.allocate(bufferBytes + maxRecord);
    this.scan = new RamScan(kernel);
    const { bytes } = kernel;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const limit = this.#start + bufferBytes + maxRecord;
    this.#buffer = { bytes, view, position: this.#start, limit, current: undefined };
  }

  /** Goes on through another channel, whose first record names its block. */
  connect(sink: ByteSink): void {
    this.#sink = sink;
    this.#buffer.position = this.#start;
    this.#buffer.current = undefined;
  }

  /** Sends the records of a batch. Resolves when the output has them. */
  async pages(block: RamBlock, batch: PageBatch): Promise<void> {
    for (let done = 0; done < batch.count; ) {
      done = encodePageRecords(this.#buffer, block, batch, done);
      await this.#flush();
    }
  }

  /** Ends the channel for a destination that waits for an EOS: QEMU 7.2. */
  async finish(): Promise<void> {
    const out = new ByteWriter();
    encodeEos(out);
    await this.#sink.write(out.bytes());
  }

  async #flush(): Promise<void> {
    const buffer = this.#buffer;
    const bytes = buffer.bytes.subarray(this.#start, buffer.position);
    this.ramBytes += bytes.length;
    buffer.position = this.#start;
    if (bytes.length > 0) await this.#sink.write(bytes);
  }
}
