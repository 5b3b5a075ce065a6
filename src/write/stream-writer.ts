/**
 * Writes a migration stream (docs/formats/stream.md), in order, from the header to the description. It is the inverse
 * of `decodeStream`. It never seeks, so the output may be a pipe.
 *
 * Nearly everything passes through two buffers of 1 MiB in the arena. A full one is written while the other is filled.
 * Page records enter in whole batches. Pages with room for heads between them are written where they are. This class knows the grammar of a stream. The caller, `passes.ts`, decides on its
 * content and order.
 */

import { type ByteSink, requireSink } from '../io/byte-source.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import type { Configuration, DeviceSection } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeCommand } from '../wire/command.ts';
import { encodeConfiguration } from '../wire/configuration.ts';
import {
  countSpaced,
  encodeHeadsInPlace,
  encodePageRecords,
  maxRecord,
  type RecordBuffer,
  recordHead,
} from '../wire/ram-record-encoder.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize, encodeMultifdFlush, ramVersion } from '../wire/ram-section.ts';
import { requireBlocks } from '../wire/require-vm.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import { SectionType } from '../wire/section-type.ts';
import { encodeStreamHeader } from '../wire/stream.ts';
import { encodeDescription } from '../wire/vm-description.ts';

/** Bytes written at a time. */
const bufferBytes = 1 << 20;
/** Bytes of an EOS. */
const eosBytes = 8;
/** Fewer pages than this are copied to the buffer. */
const leastInPlace = 16;
/** Arena bytes that a writer needs. */
export const writerArenaBytes = 2 * arenaBytes(bufferBytes + maxRecord);

/** How a stream is written. */
export interface StreamWriterOptions {
  /** Whether sections end with footers; machine types before 2.4 have none. Default true. */
  footers?: boolean;
  /** Section id of `ram`. No other section may have it. Default 1. */
  ramId?: number | undefined;
}

/**
 * After the output has thrown, the methods throw that error; the first one may be later than the call whose bytes
 * failed, but not later than `flush`. After the end of the stream, and for calls in the wrong
 * order, methods throw an Error. `raw` and `records` do not check the order.
 */
export class StreamWriter {
  readonly kernel: Kernel;
  #output: ByteSink;
  /** Whether sections end with footers. */
  readonly footers: boolean;
  /** Section id of `ram`. */
  readonly ramId: number;
  /** Arena address of the buffer that is being filled, and of the one that is being written or is empty. */
  #start: number;
  #other: number;
  readonly #buffer: RecordBuffer;
  /** Bytes that were handed to the output. */
  #written = 0;
  /** The write under way. It never rejects: an error is in `#over`. */
  #writing: Promise<void> = Promise.resolve();
  /** The reason why nothing more can be written: the stream has ended, or the output failed. */
  #over: { error: unknown } | undefined;
  /** The open section of RAM. */
  #open: 'part' | 'end' | undefined;
  #hasBegun = false;
  /** Names of the listed blocks. Undefined before RAM begins. */
  #names: ReadonlySet<string> | undefined;
  #hasEndedRam = false;
  /** Bytes of page records, and of the EOS of each PART: what QEMU counts as RAM. */
  ramBytes = 0;

  /**
   * Allocates its buffer in the arena of `kernel`, which must also contain the payloads of the batches.
   * @throws TypeError if the output is not a `ByteSink`.
   */
  constructor(kernel: Kernel, output: ByteSink, { footers = true, ramId = 1 }: StreamWriterOptions = {}) {
    requireSink(output);
    this.kernel = kernel;
    this.#output = output;
    this.footers = footers;
    this.ramId = ramId;
    this.#start = kernel.allocate(bufferBytes + maxRecord);
    this.#other = kernel.allocate(bufferBytes + maxRecord);
    const { bytes } = kernel;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const limit = this.#start + bufferBytes + maxRecord;
    this.#buffer = { bytes, view, position: this.#start, limit, current: undefined };
  }

  /** Bytes of the stream so far. */
  get length(): number {
    return this.#written + this.#buffer.position - this.#start;
  }

  /** Begins the stream, once. */
  async begin(configuration: Configuration | undefined): Promise<void> {
    this.#requireOrder(!this.#hasBegun, 'one begin, got another');
    this.#hasBegun = true;
    const out = new ByteWriter();
    encodeStreamHeader(out);
    if (configuration !== undefined) encodeConfiguration(out, configuration);
    await this.raw(out.bytes());
  }

  /**
   * Begins RAM with its START, which contains the list of blocks. `guestAddresses` adds the word of x-ignore-shared to
   * each entry, `hostPages` the size of the host pages to blocks of huge pages (postcopy). `multifdFlush` adds a mark
   * for the multifd channels.
   * @throws RangeError for a list of blocks that no reader could read.
   */
  async startRam(
    blocks: readonly RamBlock[],
    { guestAddresses = false, hostPages = false, multifdFlush = false } = {},
  ): Promise<void> {
    this.#requireOrder(this.#hasBegun, 'begin before RAM');
    this.#requireOrder(this.#names === undefined, 'one START of RAM, got another');
    requireBlocks(blocks);
    this.#names = new Set(blocks.map(({ idstr }) => idstr));
    const total = blocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
    const out = new ByteWriter();
    encodeSectionHead(out, { kind: 'start', id: this.ramId, name: 'ram', instanceId: 0, versionId: ramVersion });
    encodeMemSize(out, total);
    for (const { idstr, usedLength, guestAddress = 0n, hostPageSize } of blocks) {
      encodeBlockEntry(out, idstr, usedLength, {
        ...(guestAddresses ? { guestAddress } : {}),
        ...(hostPages && hostPageSize !== undefined ? { hostPageSize } : {}),
      });
    }
    if (multifdFlush) encodeMultifdFlush(out);
    this.#endBody(out);
    await this.raw(out.bytes());
  }

  /** Whether the next record of this block must name it, because the latest record was of another block. */
  names(block: RamBlock): boolean {
    return this.#buffer.current !== block;
  }

  /** Makes the next record name its block, whatever the latest block was. */
  forgetBlock(): void {
    this.#buffer.current = undefined;
  }

  /**
   * Writes the records of a batch, in the open PART or END, or in a new PART.
   * @throws RangeError for a block that was not listed, and impossible records.
   */
  async pages(block: RamBlock, batch: PageBatch): Promise<void> {
    if (this.#names?.has(block.idstr) === false) {
      throw new RangeError(`expected a RAM block that was listed, got "${block.idstr}"`);
    }
    if (this.#open === undefined) await this.beginPart();
    await this.records(block, batch);
  }

  /** Writes records `first` to `end - 1` of a batch, without regard to their context. */
  async records(block: RamBlock, batch: PageBatch, first = 0, end = batch.count): Promise<void> {
    this.#throwOver();
    const { length } = this;
    for (let done = first; ; ) {
      const spaced = countSpaced(block, batch, done, end);
      const isInPlace = spaced >= leastInPlace;
      if (isInPlace && !this.names(block)) {
        await this.#writeInPlace(block, batch, done, done + spaced);
        done += spaced;
      } else {
        // The first record names the block, and needs more room.
        const stop = isInPlace ? done + 1 : end;
        const next = encodePageRecords(this.#buffer, block, batch, done, stop);
        if (next < stop) await this.#turn();
        done = next;
      }
      if (done === end) break;
    }
    this.ramBytes += this.length - length;
  }

  /** Writes records from where their pages are. Resolves when the output has them. */
  async #writeInPlace(block: RamBlock, batch: PageBatch, first: number, end: number): Promise<void> {
    await this.#turn();
    await this.#settle();
    const { bytes } = this.#buffer;
    encodeHeadsInPlace(this.#buffer, block, batch, first, end);
    const last = batch.data[end - 1] as number;
    this.#write(bytes.subarray((batch.data[first] as number) - recordHead, last + block.pageSize));
    await this.#settle();
  }

  /** Begins a PART, if none is open. A PART may end without pages. */
  async beginPart(): Promise<void> {
    if (this.#open === 'part') return;
    await this.#begin('part');
  }

  /**
   * Writes a mark for the multifd channels, in the open PART or END, or in a new PART. Each channel has a SYNC for it.
   */
  async multifdFlush(): Promise<void> {
    if (this.#open === undefined) await this.beginPart();
    const out = new ByteWriter();
    encodeMultifdFlush(out);
    await this.raw(out.bytes());
  }

  /** Ends the open PART, if any. */
  async endPart(): Promise<void> {
    if (this.#open !== 'part') return;
    this.ramBytes += eosBytes;
    await this.#end();
  }

  /** Begins the END of RAM. The pages that follow are the last ones. */
  async beginEnd(): Promise<void> {
    await this.endPart();
    await this.#begin('end');
  }

  /** Ends RAM: the open END, or one without pages. */
  async endRam(): Promise<void> {
    if (this.#open !== 'end') await this.beginEnd();
    await this.#end();
  }

  /** Leaves RAM without an END, as a background snapshot does. No pages follow. */
  async omitRamEnd(): Promise<void> {
    await this.endPart();
    this.#hasEndedRam = true;
  }

  /** Writes a command. */
  async command(code: number, payload?: Uint8Array): Promise<void> {
    this.#requireClosed('a command');
    const out = new ByteWriter();
    encodeCommand(out, code, payload);
    await this.raw(out.bytes());
  }

  /** Writes a device section. */
  async device(device: Omit<DeviceSection, 'offset' | 'length' | 'packaged' | 'boundary'>): Promise<void> {
    this.#requireClosed('a device');
    const out = new ByteWriter();
    encodeSectionHead(out, device);
    out.raw(device.data);
    if (this.footers) encodeFooter(out, device.id);
    await this.raw(out.bytes());
  }

  /** Ends the stream. The text of the description follows, if given. */
  async finish(description?: string): Promise<void> {
    this.#requireClosed('the end of the stream');
    this.#requireOrder(this.#hasBegun, 'begin before the end of the stream');
    this.#requireOrder(this.#names === undefined || this.#hasEndedRam, 'the END of RAM before the end of the stream');
    const out = new ByteWriter().u8(SectionType.eof);
    if (description !== undefined) encodeDescription(out, description);
    await this.raw(out.bytes());
    await this.flush();
    this.#over = { error: new Error('the stream is finished: nothing can be written after its end') };
  }

  /** Writes bytes unchanged, such as a whole section of another stream. */
  raw(bytes: Uint8Array, rest?: RawSection['rest']): Promise<void> {
    return rest === undefined ? this.#raw(bytes) : this.#rawAll(bytes, rest);
  }

  async #rawAll(bytes: Uint8Array, rest: NonNullable<RawSection['rest']>): Promise<void> {
    await this.#raw(bytes);
    for await (const piece of rest()) await this.#raw(piece);
  }

  async #raw(bytes: Uint8Array): Promise<void> {
    this.#throwOver();
    const buffer = this.#buffer;
    if (bytes.length > buffer.limit - buffer.position) await this.#turn();
    if (bytes.length > buffer.limit - buffer.position) {
      this.#write(bytes);
      await this.#settle();
      return;
    }
    buffer.bytes.set(bytes, buffer.position);
    buffer.position += bytes.length;
  }

  /** Writes the buffered bytes now, for a receiver that waits for them. Resolves when the output has all bytes. */
  async flush(): Promise<void> {
    this.#throwOver();
    await this.#turn();
    await this.#settle();
  }

  /**
   * Goes on through another output, between two sections, after the old one has failed: a recovery of postcopy. What was
   * in the buffers is lost, and an open section is given up. The next record names its block.
   */
  async reconnect(output: ByteSink): Promise<void> {
    requireSink(output);
    await this.#writing;
    this.#output = output;
    this.#over = undefined;
    this.#open = undefined;
    this.#hasEndedRam = false;
    this.#buffer.position = this.#start;
    this.forgetBlock();
  }

  /** Goes on with a stream that another writer has begun, and whose START of RAM had these blocks: a recovery. */
  adopt(blocks: readonly RamBlock[]): void {
    this.#requireOrder(!this.#hasBegun, 'a stream that was not begun here');
    this.#hasBegun = true;
    this.#names = new Set(blocks.map(({ idstr }) => idstr));
  }

  /** Begins to write the buffered bytes, and turns to the other buffer when that is free. */
  async #turn(): Promise<void> {
    await this.#settle();
    const buffer = this.#buffer;
    if (buffer.position === this.#start) return;
    this.#write(buffer.bytes.subarray(this.#start, buffer.position));
    [this.#start, this.#other] = [this.#other, this.#start];
    buffer.position = this.#start;
    buffer.limit = this.#start + bufferBytes + maxRecord;
  }

  /** Waits for the write under way. @throws the error of the output */
  async #settle(): Promise<void> {
    await this.#writing;
    this.#throwOver();
  }

  /** Begins a write. After a failure the output may end anywhere, so nothing may follow. */
  #write(bytes: Uint8Array): void {
    this.#written += bytes.length;
    const write = async () => this.#output.write(bytes);
    this.#writing = write().catch((error) => {
      this.#over ??= { error };
    });
  }

  #requireOrder(isRight: boolean, expected: string): void {
    this.#throwOver();
    if (!isRight) throw new Error(`expected ${expected}`);
  }

  #throwOver(): void {
    if (this.#over !== undefined) throw this.#over.error;
  }

  #requireClosed(what: string): void {
    this.#requireOrder(this.#open === undefined, `the end of the ${this.#open?.toUpperCase()} of RAM before ${what}`);
  }

  async #begin(kind: 'part' | 'end'): Promise<void> {
    this.#requireOrder(this.#names !== undefined, `RAM to be started before its ${kind.toUpperCase()}`);
    this.#requireOrder(!this.#hasEndedRam, `nothing of RAM after its END, got a ${kind.toUpperCase()}`);
    this.#hasEndedRam = kind === 'end';
    this.#open = kind;
    const out = new ByteWriter();
    encodeSectionHead(out, { kind, id: this.ramId });
    await this.raw(out.bytes());
  }

  async #end(): Promise<void> {
    this.#open = undefined;
    const out = new ByteWriter();
    this.#endBody(out);
    await this.raw(out.bytes());
  }

  #endBody(out: ByteWriter): void {
    encodeEos(out);
    if (this.footers) encodeFooter(out, this.ramId);
  }
}
