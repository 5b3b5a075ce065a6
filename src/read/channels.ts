/**
 * The channels of a multifd migration (docs/formats/multifd.md), read along with the main stream. At the i-th mark of the
 * main stream, each channel yields its packets up to its i-th SYNC, in the order of the channel numbers.
 */
import type { ByteSource } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { Configuration, FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding, type Place } from '../vm/migration-error.ts';
import type { ByteWindow } from '../wire/byte-window.ts';
import { type ChannelState, decodeChannelEnd, decodeEpoch, type PacketContext } from '../wire/multifd-channel.ts';
import { decodeHello, type MultifdHello, type PacketMethod } from '../wire/multifd-packet.ts';
import { PacketNumbers } from '../wire/packet-numbers.ts';
import type { RamState } from '../wire/ram-record.ts';
import { isDamage } from '../wire/salvage.ts';
import { ChannelReader } from './channel-reader.ts';
import { allocateWindow, type WindowBuffers, windowArenaBytes } from './window-reader.ts';

/** The most channels that QEMU uses. */
export const maxChannels = 255;
/** Bytes of arena for the buffers of all channels. Each gets its share, but no more than the main stream has. */
const channelArena = 32 << 20;
const minBody = 64 * 1024;
const maxBody = 1 << 20;

/** Bytes that a channel reads at a time. */
function bodyBytesFor(channels: number): number {
  const share = Math.floor(channelArena / channels / 2);
  return Math.min(maxBody, Math.max(minBody, 2 ** Math.floor(Math.log2(share))));
}

/** Bytes of arena that `channels` channels need. */
export function channelArenaBytes(channels: number): number {
  return channels === 0 ? 0 : channels * windowArenaBytes(bodyBytesFor(channels));
}

/** What was read from a channel. */
export interface ChannelReport {
  id: number;
  /** Name of its source. */
  source: string;
  /** Packets of all kinds, including those with only a SYNC. */
  packets: number;
  syncs: number;
  normalPages: number;
  zeroPages: number;
  /** Packets with a device's state. */
  devicePackets: number;
  /** Bytes read. */
  bytes: number;
  /** Bytes after decompression. */
  decompressedBytes: number;
}

/** A channel while it is read. */
export interface Channel {
  reader: ChannelReader;
  state: ChannelState;
}

/** What the channels of a Flow share with its main stream. */
export interface ChannelOptions {
  ram: RamState;
  batch: PageBatch;
  /** Arena address of {@link packetRamBytes} bytes for the pages of a packet. */
  slots: number;
  read: 'pages' | 'bitmaps';
}

/** Allocates buffers for the channels from the arena. */
export function allocateChannels(kernel: Kernel, channels: number): WindowBuffers[] {
  return Array.from({ length: channels }, () => allocateWindow(kernel, bodyBytesFor(channels)));
}

/** The channels of one Flow. */
export class ChannelSet {
  readonly #readers: ChannelReader[];
  /** In the order of their numbers. Empty until their first bytes have been read. */
  #channels: Channel[] = [];
  readonly #context: PacketContext;
  /** With `partial`: the channels that have broken off. */
  readonly #broken = new Set<Channel>();

  constructor(
    kernel: Kernel,
    sources: readonly ByteSource[],
    buffers: readonly WindowBuffers[],
    codecs: PageCodecs,
    options: ChannelOptions,
  ) {
    this.#readers = sources.map((source, i) => new ChannelReader(kernel, buffers[i] as WindowBuffers, source, codecs));
    this.#context = { ...options, shared: { numbers: new PacketNumbers(), method: undefined } };
  }

  /** How many channels there are. */
  get count(): number {
    return this.#readers.length;
  }

  /** How many bytes of all channels have been read. */
  get reached(): number {
    return this.#readers.reduce((sum, { reader }) => sum + reader.reached, 0);
  }

  get method(): PacketMethod | undefined {
    return this.#context.shared.method;
  }

  /** The guest's UUID; all zero if it has none. */
  get uuid(): string | undefined {
    return this.#channels[0]?.state.hello.uuid;
  }

  /** The source of a channel, and the offset in it of a byte of its window. */
  locate(id: number, address: number): { source: ByteSource; offset: number } | undefined {
    const reader = this.#channels.find(({ state }) => state.hello.id === id)?.reader.reader;
    const offset = reader?.offsetOf(address);
    return reader === undefined || offset === undefined ? undefined : { source: reader.source, offset };
  }

  report(): ChannelReport[] {
    return this.#channels.map(({ reader, state }) => ({
      id: state.hello.id,
      source: reader.reader.window.source,
      ...state.counts,
      bytes: reader.reader.window.offset,
    }));
  }

  /** Reads the first bytes of every channel. @throws MigrationError `bad-channel` if they are not of one set. */
  async begin(): Promise<void> {
    const found: Channel[] = [];
    for (const reader of this.#readers) {
      const { window } = reader.reader;
      let hello: ChannelState['hello'] | undefined;
      const decoder = (function* () {
        hello = yield* decodeHello(window);
      })();
      for await (const _ of reader.drive(decoder));
      if (hello === undefined) continue;
      const place = window.place(0);
      const other = found.find(({ state }) => state.hello.id === hello?.id);
      if (other !== undefined) {
        throw badChannel(
          place,
          `expected channels with different numbers, got ${hello.id}, which ${nameOf(other)} already has`,
        );
      }
      const [first] = found;
      if (first !== undefined && first.state.hello.uuid !== hello.uuid) {
        throw badChannel(
          place,
          `expected the guest UUID ${first.state.hello.uuid} of ${nameOf(first)}, got ${hello.uuid}`,
        );
      }
      window.channel = hello.id;
      const counts = { packets: 0, syncs: 0, normalPages: 0, zeroPages: 0, devicePackets: 0, decompressedBytes: 0 };
      found.push({ reader, state: { hello, counts } });
    }
    this.#channels = found.sort((a, b) => a.state.hello.id - b.state.hello.id);
  }

  /** The finding for channels whose numbers show that others are missing. Call it after {@link begin}. */
  missing(): Finding | undefined {
    const given = new Set(this.#channels.map(({ state }) => state.hello.id));
    const last = this.#channels.at(-1);
    if (last === undefined || last.state.hello.id < given.size) return undefined;
    const missing = Array.from({ length: last.state.hello.id }, (_, id) => id).filter((id) => !given.has(id));
    const numbers = missing.length > 8 ? `${missing.slice(0, 8).join(', ')}, …` : missing.join(', ');
    const message = `channel ${last.state.hello.id} was given, but not channel ${numbers}`;
    return makeFinding('missing-channels', message, last.reader.reader.window.place(0));
  }

  /** The numbers of the packets that were read: whether a gap proves that a channel is missing, and whether there is one. */
  get numbers(): { isReliable: boolean; hasGaps: boolean } {
    return this.#context.shared.numbers;
  }

  /** Compares the channels with the configuration in the main stream. @throws MigrationError `bad-channel` */
  checkConfiguration(configuration: Configuration): void {
    for (const { reader, state } of this.#channels) {
      requireUuid(configuration, state.hello, reader.reader.window.place(0));
    }
  }

  /**
   * Checks a precopy batch of the main stream: with channels, all its pages are zero. Page data means that the channels are
   * of another migration, even if the numbers of marks agree. Pages in postcopy do not go through channels.
   * @throws MigrationError `bad-channel`
   */
  checkMainPages(item: Extract<FlowItem, { kind: 'pages' }>, window: ByteWindow): void {
    checkMainPages(item, window);
  }

  /** The channels to read for a mark of the main stream, in order. With `partial`, without those that have broken off. */
  epoch(): readonly Channel[] {
    return this.#context.ram.partial ? this.#channels.filter((channel) => !this.#broken.has(channel)) : this.#channels;
  }

  /**
   * Reads a channel up to its SYNC packet for the mark of the main stream at `mark`. There is an item per packet, so the
   * caller delegates to the channel itself: every async generator between costs time.
   */
  packets(channel: Channel, mark: Place): AsyncGenerator<FlowItem, void> {
    const { reader, state } = channel;
    const packets = reader.drive<FlowItem>(decodeEpoch(reader.reader.window, state, this.#context, mark));
    return this.#context.ram.partial ? this.#untilBroken(channel, packets) : packets;
  }

  /** Passes items on. If the channel breaks off, yields the error as a finding, and the channel is not read again. */
  async *#untilBroken(channel: Channel, packets: AsyncGenerator<FlowItem, void>): AsyncGenerator<FlowItem, void> {
    try {
      yield* packets;
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#broken.add(channel);
      yield { kind: 'finding', finding: error.toFinding() };
    }
  }

  /** Reads the rest of the channels, after the last mark of the main stream. */
  async *end(): AsyncGenerator<FlowItem, void> {
    for (const { reader, state } of this.epoch()) {
      yield* reader.drive<FlowItem>(decodeChannelEnd(reader.reader.window, state, this.#context));
    }
    const last = this.#channels.at(-1);
    if (last === undefined) return;
    const finding = lostPackets(this.#context.shared.numbers, last.reader.reader.window.place());
    if (finding !== undefined) yield { kind: 'finding', finding };
  }

  /** Waits for pending reads. Afterwards nothing writes to the arena. */
  async close(): Promise<void> {
    for (const reader of this.#readers) await reader.close();
  }
}

/** The finding for packets whose numbers never came, at the end of all channels. */
export function lostPackets(numbers: PacketNumbers, place: Place): Finding | undefined {
  const lost = numbers.lost();
  if (lost === undefined) return undefined;
  const message = `expected packets with all numbers below ${lost.of}, but ${lost.count} are missing, the first of them ${lost.first}: is a channel missing?`;
  return makeFinding('missing-channels', message, place);
}

/** Compares a channel with the main stream's configuration. @throws MigrationError `bad-channel` */
export function requireUuid(configuration: Configuration | undefined, hello: MultifdHello, place: Place): void {
  const { uuid, capabilities = [] } = configuration ?? {};
  if (capabilities.includes('mapped-ram')) throw badChannel(place, 'expected no channels with a mapped-ram file');
  if (uuid === undefined || uuid === hello.uuid) return;
  throw badChannel(place, `expected the guest UUID ${uuid} of the main stream, got ${hello.uuid}`);
}

/** See {@link ChannelSet.checkMainPages}. */
export function checkMainPages({ block, batch }: Extract<FlowItem, { kind: 'pages' }>, window: ByteWindow): void {
  for (let i = 0; i < batch.count; i++) {
    if (batch.kind[i] === PageKind.zero) continue;
    const place = { ...window.place(batch.offset[i]), section: 'ram', block: block.idstr };
    throw badChannel(place, 'expected no channels with a stream that contains page data');
  }
}

const nameOf = ({ reader }: Channel) => reader.reader.window.source;

const badChannel = (place: Place, message: string) => new MigrationError('bad-channel', message, place);
