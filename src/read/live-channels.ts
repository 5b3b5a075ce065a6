/**
 * The multifd channels of a live migration: who they are, and how far each has come. A channel may join while the main
 * stream is being read, because its connection is accepted on its own.
 *
 *     hello ─→ (block list known) ─→ epoch 0 ─SYNC─→ wait ─→ epoch 1 ─SYNC─→ wait ─→ …
 *                                                    ↑ until the main stream has passed its mark of that epoch
 */
import type { ByteSource } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { Configuration, FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, type Place } from '../vm/migration-error.ts';
import type { ByteWindow, InflateRequest, Need } from '../wire/byte-window.ts';
import { has } from '../wire/byte-window.ts';
import { type ChannelState, decodeEpoch, type PacketContext, type SharedByChannels } from '../wire/multifd-channel.ts';
import { decodeHello, multifdPacketPages, type PacketMethod, packetRamBytes } from '../wire/multifd-packet.ts';
import { PacketNumbers } from '../wire/packet-numbers.ts';
import type { RamState } from '../wire/ram-record.ts';
import { ChannelReader } from './channel-reader.ts';
import { checkMainPages, lostPackets, requireUuid } from './channels.ts';
import type { FlowChannels } from './open.ts';
import { allocateWindow } from './window-reader.ts';

/** The most records of a packet. */
const batchCapacity = multifdPacketPages(1024);

/** Bytes of arena that a channel takes besides its window. */
export const liveChannelArenaBytes = arenaBytes(packetRamBytes) + pageBatchArenaBytes(batchCapacity);

/**
 * Bytes that the window of a channel reads at a time. Large reads take less JavaScript per page, and a socket has several MiB
 * when the pages before were written. Many channels have small windows, to save memory.
 */
export function channelBodyBytes(index: number): number {
  if (index < 4) return 4 << 20;
  return index < 16 ? 1 << 20 : 64 * 1024;
}

/** A channel, and how far it has come. */
export interface LiveChannel {
  readonly reader: ChannelReader;
  /** Undefined until its first bytes have come. */
  state: ChannelState | undefined;
  /** Its peer has ended it. */
  hasEnded: boolean;
}

/** What a channel's decoder yields. `wait`: it goes on when {@link LiveChannels} says so. */
type Step = Need | InflateRequest | FlowItem | { kind: 'wait' };

export class LiveChannels {
  readonly #kernel: Kernel;
  readonly #codecs: PageCodecs;
  readonly #ram: RamState;
  readonly #mostChannels: number;
  readonly #shared: SharedByChannels;
  readonly #channels: LiveChannel[] = [];
  /** Marks that the main stream has passed. */
  #marks = 0;
  /** The block list is known, so packets can be read. */
  #isReleased = false;
  #configuration: Configuration | undefined;

  /** @param method the only compression that is accepted; undefined: that of the first packet with data */
  constructor(kernel: Kernel, codecs: PageCodecs, ram: RamState, mostChannels: number, method?: PacketMethod) {
    this.#shared = { numbers: new PacketNumbers(), method };
    this.#kernel = kernel;
    this.#codecs = codecs;
    this.#ram = ram;
    this.#mostChannels = mostChannels;
  }

  get count(): number {
    return this.#channels.length;
  }

  /** What was read, as of a file, in the order of the channels' numbers. */
  get facts(): FlowChannels {
    const known = this.#channels.flatMap(({ reader, state }) => (state === undefined ? [] : [{ reader, state }]));
    known.sort((a, b) => a.state.hello.id - b.state.hello.id);
    return {
      compression: this.#shared.method,
      uuid: known[0]?.state.hello.uuid,
      numbers: this.#shared.numbers,
      list: known.map(({ reader, state }) => ({
        ...{ id: state.hello.id, source: reader.reader.window.source, ...state.counts },
        bytes: reader.reader.window.offset,
      })),
    };
  }

  /** Adds a channel, whose window reads `bodyBytes` at a time. @throws RangeError if there are too many */
  add(source: ByteSource, bodyBytes: number): LiveChannel {
    if (this.count >= this.#mostChannels) {
      throw new RangeError(`expected at most ${this.#mostChannels} multifd channels`);
    }
    const window = allocateWindow(this.#kernel, bodyBytes);
    const reader = new ChannelReader(this.#kernel, window, source, this.#codecs);
    const channel: LiveChannel = { reader, state: undefined, hasEnded: false };
    this.#channels.push(channel);
    return channel;
  }

  /**
   * Whether another channel must exist: a number is missing among those of the channels, or among those of the packets.
   * Call it when all channels have come to a mark.
   */
  get lacksOne(): boolean {
    const ids = this.#channels.map(({ state }) => state?.hello.id ?? 0);
    const { isReliable, hasGaps } = this.#shared.numbers;
    return Math.max(-1, ...ids) >= this.count || (isReliable && hasGaps);
  }

  /** Whether the numbers of packets show a channel that is missing. Before 9.0 they do not. */
  get showsAll(): boolean {
    return this.#shared.numbers.isReliable;
  }

  /** Decodes a channel to its end. @throws MigrationError `bad-channel` if it is not of this set, or came too late */
  *decode(channel: LiveChannel): Generator<Step, void> {
    const { window } = channel.reader.reader;
    const hello = yield* decodeHello(window);
    this.#requireFit(hello, window);
    window.channel = hello.id;
    const counts = { packets: 0, syncs: 0, normalPages: 0, zeroPages: 0, devicePackets: 0, decompressedBytes: 0 };
    const state: ChannelState = { hello, counts };
    channel.state = state;
    while (!this.#isReleased) yield { kind: 'wait' };
    const context: PacketContext = {
      ...{ ram: this.#ram, read: 'pages', shared: this.#shared },
      batch: new PageBatch(this.#kernel, batchCapacity),
      slots: this.#kernel.allocate(packetRamBytes),
    };
    while (yield* this.#decodeEpoch(channel, state, context)) while (counts.syncs > this.#marks) yield { kind: 'wait' };
    channel.hasEnded = true;
  }

  /** Decodes up to a SYNC. Returns false if the channel has ended instead, between two packets. */
  *#decodeEpoch(channel: LiveChannel, state: ChannelState, context: PacketContext): Generator<Step, boolean> {
    const { window } = channel.reader.reader;
    if (!(yield* has(window, 1))) return false;
    try {
      yield* decodeEpoch(window, state, context, window.place());
      return true;
    } catch (error) {
      // QEMU 7.2 may send packets without pages after the last SYNC.
      if (error instanceof MigrationError && error.code === 'sync-missing') return false;
      throw error;
    }
  }

  #requireFit(hello: ChannelState['hello'], window: ByteWindow): void {
    const place = window.place(0);
    // Up to the first mark there are no pages. Beyond the second, its old pages would replace newer ones.
    if (this.#marks > 1) {
      const message = `channel ${hello.id} came after pages of later moments`;
      throw new MigrationError('missing-channels', message, place);
    }
    const given = this.#channels.flatMap(({ state }) => (state === undefined ? [] : [state.hello]));
    if (given.some(({ id }) => id === hello.id)) {
      throw new MigrationError('bad-channel', `expected a new channel number, got ${hello.id} again`, place);
    }
    const [first] = given;
    if (first !== undefined && first.uuid !== hello.uuid) {
      const message = `expected the guest UUID ${first.uuid} of channel ${first.id}, got ${hello.uuid}`;
      throw new MigrationError('bad-channel', message, place);
    }
    requireUuid(this.#configuration, hello, place);
  }

  /** Checks the main stream's configuration against the channels that have come. @throws MigrationError `bad-channel` */
  checkConfiguration(configuration: Configuration): void {
    this.#configuration = configuration;
    for (const { reader, state } of this.#channels) {
      if (state !== undefined) requireUuid(configuration, state.hello, reader.reader.window.place(0));
    }
  }

  /** Checks a precopy batch of the main stream, see `ChannelSet.checkMainPages`. */
  checkMainPages(item: Extract<FlowItem, { kind: 'pages' }>, window: ByteWindow): void {
    if (this.count > 0) checkMainPages(item, window);
  }

  /** The block list is known: packets can be decoded. */
  release(): void {
    this.#isReleased = true;
  }

  /**
   * Whether all channels have come to the mark of the main stream at `mark`. @throws MigrationError `sync-missing` if one
   * has ended before
   */
  hasReached(mark: Place): boolean {
    for (const { reader, state, hasEnded } of this.#channels) {
      if (!hasEnded || (state?.counts.syncs ?? 0) > this.#marks) continue;
      const message = `expected a SYNC for the mark at ${mark.offset} of ${mark.source}, got the end of the channel`;
      throw new MigrationError('sync-missing', message, reader.reader.window.place());
    }
    return this.#channels.every(({ state }) => (state?.counts.syncs ?? 0) > this.#marks);
  }

  /** The main stream has passed a mark. */
  pass(): void {
    this.#marks++;
  }

  /** The finding for packets that did not come, at the end of the main stream. */
  atEnd(): Finding | undefined {
    const last = this.#channels.at(-1);
    return last === undefined ? undefined : lostPackets(this.#shared.numbers, last.reader.reader.window.place());
  }

  /** Frees the decompressors. */
  close(): void {
    for (const { reader } of this.#channels) reader.release();
  }
}
