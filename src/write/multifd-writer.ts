/**
 * Writes RAM through multifd channels (docs/formats/multifd.md, "Writing them"), beside the main stream of a
 * {@link StreamWriter}: the counterpart of `read/channels.ts`.
 *
 *     main       START … mark     [ZERO records] … mark         END [mark]
 *     channel k  hello     SYNC   packet, packet, …   SYNC           [SYNC]
 *
 * Pages are collected in the slot of a packet. The packet is sent when it is full, when the block changes, and at a
 * mark. Each packet goes to the channel with the fewest bytes so far. Up to four packets are compressed and written at
 * a time, each in its own slot. The packets of one channel stay in order. There is one await per packet. A mark waits
 * for all channels, so a receiver that waits at the mark gets everything it needs to continue.
 */

import type { ByteSink } from '../io/byte-source.ts';
import type { PageCodecs, PageEncoder, StreamFormat } from '../io/page-codec.ts';
import { levelsOf } from '../io/page-codec.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import { maxChannels } from '../read/channels.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import { type AutoClosed, asyncDispose } from '../vm/auto-closed.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import {
  encodeMultifdHeader,
  encodeMultifdHello,
  type MultifdHeader,
  maxPayload,
  multifdHeaderLength,
  multifdPacketPages,
  packetRamBytes,
} from '../wire/multifd-packet.ts';
import { ChannelWriter, type WrittenChannel } from './channel-writer.ts';
import type { StreamWriter } from './stream-writer.ts';

/** The most packets under way at a time. */
const maxSlots = 4;
/** Zero pages handed to the main stream at a time. */
const zeroCapacity = 4096;
/** Bytes for the header of a packet. The largest header is that of 1 KiB pages. */
const headBytes = multifdHeaderLength(1024);
/** Arena bytes that a writer needs. */
export const multifdArenaBytes = maxSlots * arenaBytes(headBytes + packetRamBytes) + pageBatchArenaBytes(zeroCapacity);

/** How the channels of a multifd set are written. */
export interface MultifdWriterOptions {
  rules: ReleaseRules;
  /** Bytes of a target page. */
  pageSize: number;
  /** The guest's UUID as 32 hex digits. Default: all zero, for a guest without one. */
  uuid?: string;
  /** Default `none`. */
  compression?: 'none' | StreamFormat;
  /** Default 1, as in QEMU. */
  level?: number;
  /** The compression engines. */
  codecs: PageCodecs;
}

/** A packet that is being filled, or under way. */
interface PacketSlot {
  /** Arena address of the pages. The header is before them. */
  readonly address: number;
  /** Header and payload, if the channel is compressed. */
  readonly packed: Uint8Array | undefined;
  readonly normal: Float64Array;
  readonly zero: Float64Array;
  normalPages: number;
  zeroPages: number;
  sent: Promise<void>;
}

/** Writes batches of pages as packets to multifd channels. */
export class MultifdWriter implements AutoClosed {
  readonly #kernel: Kernel;
  readonly #main: StreamWriter;
  readonly #options: MultifdWriterOptions;
  readonly #method: 'none' | StreamFormat;
  readonly #channels: readonly ChannelWriter[];
  /** Ends the current wait. */
  #wake: () => void = () => {};
  readonly #slots: PacketSlot[];
  readonly #zeros: PageBatch | undefined;
  readonly #pagesPerPacket: number;
  readonly #headLength: number;
  #slot = 0;
  #packetNumber = 0n;
  #block: RamBlock | undefined;
  #isMarked = true;
  #isInEnd = false;

  private constructor(main: StreamWriter, channels: readonly ChannelWriter[], options: MultifdWriterOptions) {
    const { kernel } = main;
    const { pageSize, compression = 'none', rules } = options;
    this.#kernel = kernel;
    this.#main = main;
    this.#options = options;
    this.#method = compression;
    this.#pagesPerPacket = multifdPacketPages(pageSize);
    this.#headLength = multifdHeaderLength(pageSize);
    this.#channels = channels;
    for (const channel of channels) channel.onFailure = () => this.#wake();
    this.#slots = Array.from({ length: Math.min(maxSlots, channels.length) }, () => ({
      address: kernel.allocate(headBytes + packetRamBytes) + headBytes,
      packed: compression === 'none' ? undefined : new Uint8Array(this.#headLength + maxPayload),
      normal: new Float64Array(this.#pagesPerPacket),
      zero: new Float64Array(this.#pagesPerPacket),
      ...{ normalPages: 0, zeroPages: 0 },
      sent: Promise.resolve(),
    }));
    if (rules.zeroPages === 'records') this.#zeros = new PageBatch(kernel, zeroCapacity);
  }

  /**
   * Sends the first bytes of all channels. The number of a channel is its index in `channels`. Packet slots are
   * allocated in the arena of the main stream's kernel, which must also contain the payloads of the batches.
   * @throws RangeError for a number of channels, a compression, a level or a UUID out of range.
   */
  static async open(
    main: StreamWriter,
    channels: readonly ByteSink[],
    options: MultifdWriterOptions,
  ): Promise<MultifdWriter> {
    const { compression = 'none', level = 1, uuid = '0'.repeat(32), codecs, pageSize } = options;
    if (!isPageSize(pageSize)) throw new RangeError(`expected a page size that is ${pageSizeRule}, got ${pageSize}`);
    if (channels.length < 1 || channels.length > maxChannels) {
      throw new RangeError(`expected 1 to ${maxChannels} multifd channels, got ${channels.length}`);
    }
    if (!/^[0-9a-f]{32}$/i.test(uuid)) throw new RangeError(`expected a UUID of 32 hex digits, got ${uuid}`);
    if (compression !== 'none') {
      if (!(compression in levelsOf)) {
        throw new RangeError(
          `expected the compression none, ${Object.keys(levelsOf).join(' or ')}, got ${compression}`,
        );
      }
      const { least, most } = levelsOf[compression];
      if (!Number.isInteger(level) || level < least || level > most) {
        throw new RangeError(`expected a level of ${compression} from ${least} to ${most}, got ${level}`);
      }
    }
    const writers: ChannelWriter[] = [];
    try {
      for (const sink of channels) {
        const encoder = compression === 'none' ? undefined : await codecs.openEncoder(compression, level);
        writers.push(new ChannelWriter(sink, encoder));
      }
      const writer = new MultifdWriter(main, writers, options);
      for (const [id, channel] of writers.entries()) {
        const hello = new ByteWriter();
        encodeMultifdHello(hello, { uuid, id });
        void channel.send(() => hello.bytes());
      }
      await writer.#settle();
      return writer;
    } catch (error) {
      for (const writer of writers) writer.abandon();
      throw error;
    }
  }

  /** What was written to each channel. */
  get channels(): readonly WrittenChannel[] {
    return this.#channels.map(({ length, packets }) => ({ length, packets }));
  }

  /** Begins RAM in the main stream, see {@link StreamWriter.startRam}. */
  async startRam(blocks: readonly RamBlock[], options: { guestAddresses?: boolean } = {}): Promise<void> {
    await this.#main.startRam(blocks, { ...options, multifdFlush: this.#options.rules.multifdMarks === 'round' });
    await this.#sync();
  }

  /**
   * Sends pages of a block in the open round, or in a new one. The pages must be data or zero. Each page may occur once
   * per round, because a reader reads channels in any order up to the mark.
   */
  async pages(block: RamBlock, batch: PageBatch): Promise<void> {
    if (block.pageSize !== this.#options.pageSize) {
      throw new RangeError(`expected pages of ${this.#options.pageSize} bytes, got those of "${block.idstr}"`);
    }
    if (this.#block !== block) await this.#sendPacket();
    this.#block = block;
    this.#isMarked = false;
    for (let done = 0; done < batch.count; ) {
      done = this.#gather(block, batch, done);
      const { normalPages, zeroPages } = this.#current;
      if (normalPages + zeroPages === this.#pagesPerPacket) await this.#sendPacket();
      if (this.#zeros?.count === zeroCapacity) await this.#sendZeros();
    }
    if (this.#zeros !== undefined) await this.#sendZeros();
  }

  /** Ends a round, if pages were sent. All channels meet at its mark. */
  async endPart(): Promise<void> {
    if (this.#isMarked) return;
    await this.#sendPacket();
    if (this.#options.rules.multifdMarks === 'round') await this.#main.multifdFlush();
    else await this.#main.beginPart();
    await this.#main.endPart();
    await this.#sync();
  }

  /** Sends a SYNC through every channel, for a mark that someone else has written to the main stream. */
  async mark(): Promise<void> {
    await this.#sync();
  }

  /** Begins the END of RAM in the main stream. The pages that follow are the last round. */
  async beginEnd(): Promise<void> {
    await this.endPart();
    await this.#main.beginEnd();
    this.#isInEnd = true;
  }

  /** Ends RAM, including the last round if the END has pages. The channels' sinks can then be closed. */
  async endRam(): Promise<void> {
    if (!this.#isInEnd) await this.beginEnd();
    const { multifdMarks } = this.#options.rules;
    const hasPages = !this.#isMarked;
    await this.#sendPacket();
    if (hasPages && multifdMarks === 'round') await this.#main.multifdFlush();
    await this.#main.endRam();
    if (hasPages || multifdMarks === 'section') await this.#sync();
  }

  /** Frees the compressors after a failure, without waiting for sinks that may never finish. */
  abandon(): void {
    for (const channel of this.#channels) channel.abandon();
  }

  /** Frees the compressors once everything is sent. */
  async close(): Promise<void> {
    await Promise.all(this.#channels.map(({ settled }) => settled));
    for (const { encoder } of this.#channels) encoder?.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  get #current(): PacketSlot {
    return this.#slots[this.#slot] as PacketSlot;
  }

  /**
   * Collects records from `first` on, until the packet or the list of zero pages is full. Returns the first record that
   * was not collected.
   */
  #gather({ idstr, pageSize }: RamBlock, batch: PageBatch, first: number): number {
    const slot = this.#current;
    const zeros = this.#zeros;
    let i = first;
    while (i < batch.count && slot.normalPages + slot.zeroPages < this.#pagesPerPacket) {
      const page = batch.page[i] as number;
      if (batch.kind[i] === PageKind.zero) {
        if (zeros === undefined) slot.zero[slot.zeroPages++] = page;
        else {
          if (zeros.count === zeroCapacity) break;
          zeros.push(PageKind.zero, page, 0, 0, 0, 0);
        }
      } else if (batch.kind[i] === PageKind.data && batch.length[i] === pageSize) {
        const room = this.#pagesPerPacket - slot.normalPages - slot.zeroPages;
        const end = dataEnd(batch, i, Math.min(batch.count, i + room), pageSize);
        const to = slot.address + slot.normalPages * pageSize;
        this.#kernel.gatherPages(batch.dataAddress + 4 * i, pageSize, end - i, to);
        slot.normal.set(batch.page.subarray(i, end), slot.normalPages);
        slot.normalPages += end - i;
        i = end;
        continue;
      } else {
        const got = `kind ${batch.kind[i]} of ${batch.length[i]} bytes for page ${page}`;
        throw new RangeError(`expected whole pages of RAM block "${idstr}" for multifd channels, got ${got}`);
      }
      i++;
    }
    return i;
  }

  async #sendZeros(): Promise<void> {
    const zeros = this.#zeros as PageBatch;
    if (zeros.count > 0) await this.#main.pages(this.#block as RamBlock, zeros);
    zeros.clear();
  }

  /** Sends the packet being filled, if it has pages, through the channel with the fewest bytes. */
  async #sendPacket(): Promise<void> {
    const slot = this.#current;
    if (slot.normalPages + slot.zeroPages === 0) return;
    const channel = this.#channels.reduce((least, each) => (each.load < least.load ? each : least));
    const { idstr, pageSize } = this.#block as RamBlock;
    slot.normal.set(slot.zero.subarray(0, slot.zeroPages), slot.normalPages);
    const header: MultifdHeader = {
      ...{ sync: false, method: this.#method, pagesAllocated: this.#pagesPerPacket, block: idstr },
      ...{ normalPages: slot.normalPages, zeroPages: slot.zeroPages },
      payloadLength: slot.normalPages * pageSize,
      packetNumber: this.#packetNumber++,
    };
    channel.packets++;
    channel.load += this.#headLength + header.payloadLength;
    slot.sent = channel.send(() => this.#pack(slot, header, channel.encoder));
    this.#slot = (this.#slot + 1) % this.#slots.length;
    await this.#unlessFailed(this.#current.sent);
    Object.assign(this.#current, { normalPages: 0, zeroPages: 0 });
  }

  /** Makes the bytes of a packet. */
  async #pack(slot: PacketSlot, header: MultifdHeader, encoder: PageEncoder | undefined): Promise<Uint8Array> {
    const { bytes } = this.#kernel;
    const { address, packed, normal } = slot;
    const { pageSize } = this.#options;
    const head = this.#headLength;
    const end = address + header.payloadLength;
    if (encoder === undefined || packed === undefined) {
      encodeMultifdHeader(bytes.subarray(address - head, address), header, pageSize, normal);
      return bytes.subarray(address - head, end);
    }
    const isEmpty = header.normalPages === 0;
    const payloadLength = isEmpty ? 0 : await encoder.encode(bytes.subarray(address, end), packed.subarray(head));
    encodeMultifdHeader(packed, { ...header, payloadLength }, pageSize, normal);
    return packed.subarray(0, head + payloadLength);
  }

  /** Sends a SYNC through every channel, for a mark of the main stream. Then waits for all channels. */
  async #sync(): Promise<void> {
    const { rules, pageSize } = this.#options;
    for (const channel of this.#channels) {
      const bytes = new Uint8Array(this.#headLength);
      const header: MultifdHeader = {
        ...{ sync: true, method: 'none', block: '', normalPages: 0, zeroPages: 0, payloadLength: 0 },
        pagesAllocated: rules.pagesAllocatedInSync ? this.#pagesPerPacket : 0,
        packetNumber: this.#packetNumber++,
      };
      encodeMultifdHeader(bytes, header, pageSize, []);
      channel.packets++;
      void channel.send(() => bytes);
    }
    this.#isMarked = true;
    await this.#unlessFailed(this.#main.flush());
    await this.#settle();
  }

  /** Waits for all channels. */
  async #settle(): Promise<void> {
    await this.#unlessFailed(Promise.all(this.#channels.map(({ settled }) => settled)));
  }

  /** Waits for `work`, or until a channel has failed. @throws the error of that channel */
  async #unlessFailed(work: Promise<unknown>): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#wake = resolve;
      work.then(() => resolve(), reject);
      if (this.#channels.some(({ hasFailed }) => hasFailed)) resolve();
    });
    this.#throwFailure();
  }

  #throwFailure(): void {
    for (const channel of this.#channels) channel.throwFailure();
  }
}

/** The end of the whole pages of data from record `first` on; at most `limit`. */
function dataEnd({ kind, length }: PageBatch, first: number, limit: number, pageSize: number): number {
  let end = first + 1;
  while (end < limit && kind[end] === PageKind.data && length[end] === pageSize) end++;
  return end;
}
