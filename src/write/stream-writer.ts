/**
 * Writes a migration stream (docs/formats/stream.md), in order, from the header to the description: the way back of
 * `decodeStream`. Nothing is sought, so the output may be a pipe.
 *
 * Everything goes through a room of 1 MiB in the arena, and leaves it in one piece when it is full. Page records are put
 * there by whole batches. What the stream says is the caller's: this knows its grammar, not what a VM is
 * (`write-stream.ts` does).
 */

import { type ByteSink, requireSink } from '../io/byte-source.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import type { Configuration, DeviceSection } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeCommand } from '../wire/command.ts';
import { encodeConfiguration } from '../wire/configuration.ts';
import { encodePageRecords, maxRecord, type RecordRoom } from '../wire/ram-record-encoder.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize, encodeMultifdFlush, ramVersion } from '../wire/ram-section.ts';
import { requireBlocks } from '../wire/require-vm.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import { SectionType } from '../wire/section-type.ts';
import { encodeStreamHeader } from '../wire/stream.ts';
import { encodeDescription } from '../wire/vm-description.ts';

/** Bytes that leave at once. */
const roomBytes = 1 << 20;
/** What a writer takes of a kernel's arena. */
export const writerArenaBytes = arenaBytes(roomBytes + maxRecord);

/** How a stream is written. */
export interface StreamWriterOptions {
  /** Whether sections end with footers; machine types before 2.4 have none. Default true. */
  footers?: boolean;
  /** Section id of `ram`: any that no other section has. Default 1. */
  ramId?: number | undefined;
}

/**
 * Methods throw what the output threw, then and ever after; an Error once the stream is finished, and for what cannot come
 * where it comes. `raw` and `records` are not asked where they come.
 */
export class StreamWriter {
  readonly kernel: Kernel;
  readonly #output: ByteSink;
  readonly #footers: boolean;
  /** Section id of `ram`. */
  readonly ramId: number;
  readonly #start: number;
  readonly #room: RecordRoom;
  #written = 0;
  /** Why nothing more can be written: it is finished, or the output failed. */
  #over: { error: unknown } | undefined;
  /** The section of RAM that is open. */
  #open: 'part' | 'end' | undefined;
  #hasBegun = false;
  /** Names of the blocks that were listed; undefined before RAM begins. */
  #names: ReadonlySet<string> | undefined;
  #hasEndedRam = false;

  /**
   * Takes its room from the arena of `kernel`, where the batches' payloads must be, too.
   * @throws TypeError for an output that is no `ByteSink`.
   */
  constructor(kernel: Kernel, output: ByteSink, { footers = true, ramId = 1 }: StreamWriterOptions = {}) {
    requireSink(output);
    this.kernel = kernel;
    this.#output = output;
    this.#footers = footers;
    this.ramId = ramId;
    this.#start = kernel.allocate(roomBytes + maxRecord);
    const { bytes } = kernel;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const limit = this.#start + roomBytes + maxRecord;
    this.#room = { bytes, view, position: this.#start, limit, current: undefined };
  }

  /** Bytes of the stream so far. */
  get length(): number {
    return this.#written + this.#room.position - this.#start;
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
   * Begins RAM: its START with the list of blocks. `guestAddresses`: with the word of x-ignore-shared in each entry.
   * `multifdFlush`: with a mark for the multifd channels.
   * @throws RangeError for a list of blocks that no reader could read.
   */
  async startRam(blocks: readonly RamBlock[], { guestAddresses = false, multifdFlush = false } = {}): Promise<void> {
    this.#requireOrder(this.#hasBegun, 'begin before RAM');
    this.#requireOrder(this.#names === undefined, 'one START of RAM, got another');
    requireBlocks(blocks);
    this.#names = new Set(blocks.map(({ idstr }) => idstr));
    const total = blocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
    const out = new ByteWriter();
    encodeSectionHead(out, { kind: 'start', id: this.ramId, name: 'ram', instanceId: 0, versionId: ramVersion });
    encodeMemSize(out, total);
    for (const { idstr, usedLength, guestAddress = 0n } of blocks) {
      encodeBlockEntry(out, idstr, usedLength, guestAddresses ? { guestAddress } : {});
    }
    if (multifdFlush) encodeMultifdFlush(out);
    this.#endBody(out);
    await this.raw(out.bytes());
  }

  /** Whether records of a block name it: if the latest record was of another one. */
  names(block: RamBlock): boolean {
    return this.#room.current !== block;
  }

  /** Has the next record name its block, whatever the latest one was of. */
  forgetBlock(): void {
    this.#room.current = undefined;
  }

  /**
   * Writes the records of a batch, in the PART or END that is open, or a new PART.
   * @throws RangeError for a block that was not listed, and records that there cannot be.
   */
  async pages(block: RamBlock, batch: PageBatch): Promise<void> {
    if (this.#names?.has(block.idstr) === false) {
      throw new RangeError(`expected a RAM block that was listed, got "${block.idstr}"`);
    }
    if (this.#open === undefined) await this.beginPart();
    await this.records(block, batch);
  }

  /** Writes records of a batch, from `first` on and below `end`, whatever is around them. */
  async records(block: RamBlock, batch: PageBatch, first = 0, end = batch.count): Promise<void> {
    this.#throwOver();
    for (let done = first; ; ) {
      done = encodePageRecords(this.#room, block, batch, done, end);
      if (done === end) return;
      await this.flush();
    }
  }

  /** Begins a PART, if none is open: it may end without pages. */
  async beginPart(): Promise<void> {
    if (this.#open === 'part') return;
    await this.#begin('part');
  }

  /** A mark for the multifd channels, in the PART or END that is open, or a new PART: each has a SYNC for it. */
  async multifdFlush(): Promise<void> {
    if (this.#open === undefined) await this.beginPart();
    const out = new ByteWriter();
    encodeMultifdFlush(out);
    await this.raw(out.bytes());
  }

  /** Ends the PART that is open, if one is. */
  async endPart(): Promise<void> {
    if (this.#open !== 'part') return;
    await this.#end();
  }

  /** Begins the END of RAM: the pages that come then are the last. */
  async beginEnd(): Promise<void> {
    await this.endPart();
    await this.#begin('end');
  }

  /** Ends RAM: the END that is open, or one without pages. */
  async endRam(): Promise<void> {
    if (this.#open !== 'end') await this.beginEnd();
    await this.#end();
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
    if (this.#footers) encodeFooter(out, device.id);
    await this.raw(out.bytes());
  }

  /** Ends the stream, with the text of the description, if there is one. */
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

  /** Writes bytes as they are: a whole section of another stream, say. */
  async raw(bytes: Uint8Array): Promise<void> {
    this.#throwOver();
    const room = this.#room;
    if (bytes.length > room.limit - room.position) await this.flush();
    if (bytes.length > room.limit - room.position) {
      await this.#write(bytes);
      return;
    }
    room.bytes.set(bytes, room.position);
    room.position += bytes.length;
  }

  /** Hands on what is in the room: for who waits for it. */
  async flush(): Promise<void> {
    const room = this.#room;
    this.#throwOver();
    if (room.position === this.#start) return;
    await this.#write(room.bytes.subarray(this.#start, room.position));
    room.position = this.#start;
  }

  /** After a failure, what was written ends anywhere: nothing may follow it. */
  async #write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#output.write(bytes);
    } catch (error) {
      this.#over = { error };
      throw error;
    }
    this.#written += bytes.length;
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
    if (this.#footers) encodeFooter(out, this.ramId);
  }
}
