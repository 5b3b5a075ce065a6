/**
 * The way from the source to the target when RAM is encoded again.
 *
 *     main, channels of the source ──→ LiveFlow ──┬──→ GuestFile      the file of --tee, or a scratch file for deltas
 *                                                 └──→ RelayEncoder ──→ main, channels of the target
 */
import type { ByteSink, ByteSource, ByteStore } from '../io/byte-source.ts';
import type { Connection } from '../io/connection.ts';
import { Tap } from '../io/tap.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { LiveFlow, liveFlowArenaBytes } from '../read/live-flow.ts';
import type { FlowItem } from '../vm/flow.ts';
import type { Bandwidth } from './bandwidth.ts';
import { GuestFile, guestFileArenaBytes } from './guest-file.ts';
import { channelSinks } from './outgoing.ts';
import { RelayEncoder, relayEncoderArenaBytes, type TargetEncoding } from './relay-encode.ts';
import { PumpFailure } from './relay-pump.ts';
import type { StreamWatch } from './relay-watch.ts';
import { fileFailure, type TeeTarget } from './tee.ts';

export interface RelayFlowOptions {
  encoding: TargetEncoding;
  tee: TeeTarget | undefined;
  /** Makes an empty file, for the content that deltas change. It is closed at the end. */
  makeScratch: () => Promise<ByteStore>;
  /** Resolves when all channels that the source has opened so far were added. */
  channelsKnown: () => Promise<void>;
  /** Connects the target for a channel. */
  connect: () => Promise<Connection>;
  bandwidth: Bandwidth | undefined;
  stream: StreamWatch;
  /** Whether a failure to read from the source counts as a good end, because everything has come. */
  isEnd: () => boolean;
  /** Called when the list of RAM blocks has been sent, so that a target with all its channels answers. */
  onStarted: () => void;
  /** Called when something was passed on. It may throw, which ends the migration. */
  onMove: () => void;
}

/** The forward direction of a migration whose RAM is encoded again. */
export class RelayFlow {
  /** Bytes that were read from the source, and bytes that the target has taken. */
  read = 0;
  written = 0;
  /** The source has ended the main connection in good order. */
  hasEnded = false;
  /** The end of the stream is being passed on, or was. */
  #givesEnd = false;
  readonly #options: RelayFlowOptions;
  readonly #flow: LiveFlow;
  /** Channels of the target, and of the source. */
  readonly #channels: Connection[] = [];
  readonly #sources: Connection[] = [];
  #source: Connection | undefined;
  /** The preempt channel, which passes on a line of its own: what it carries is kept, too. */
  #preempt: Tap | undefined;
  #encoder: RelayEncoder | undefined;
  #guest: GuestFile | undefined;
  #scratch: ByteStore | undefined;
  #failure: { error: unknown } | undefined;

  private constructor(options: RelayFlowOptions, flow: LiveFlow) {
    this.#options = options;
    this.#flow = flow;
  }

  static async open(options: RelayFlowOptions): Promise<RelayFlow> {
    const kernel = await loadKernelFor([liveFlowArenaBytes(), guestFileArenaBytes, relayEncoderArenaBytes]);
    const { channelsKnown, encoding, tee } = options;
    const drainsPreempt = tee !== undefined;
    return new RelayFlow(options, new LiveFlow(kernel, { codecs: encoding.codecs, channelsKnown, drainsPreempt }));
  }

  /** Whether the target may have the end of the stream. */
  mayHavePassed(): boolean {
    return this.#givesEnd;
  }

  /** There may be more to pass on. */
  get isBusy(): boolean {
    return !this.hasEnded;
  }

  /** Connections to the target besides the main one. */
  get channels(): readonly Connection[] {
    return this.#channels;
  }

  /** Why there is no file of the tee. */
  get failure(): { error: unknown } | undefined {
    return this.#options.tee === undefined ? undefined : this.#failure;
  }

  /** Adds a channel of the source. */
  addChannel(source: Connection): void {
    this.#sources.push(source);
    this.#flow.addChannel(this.#blaming(source));
  }

  /** Returns where the bytes of a preempt channel are to be written, if they are kept. */
  addPreempt(): Tap | undefined {
    if (this.#options.tee === undefined || this.#preempt !== undefined) return undefined;
    this.#preempt = new Tap('preempt');
    this.#flow.addPreempt(this.#preempt);
    return this.#preempt;
  }

  /** Prepares the main connection. {@link run} does the work. */
  begin(source: Connection, target: Connection): void {
    this.#source = source;
    const { encoding } = this.#options;
    this.#encoder = new RelayEncoder(this.#flow.kernel, {
      ...encoding,
      ...{ main: this.#sink(target), mainName: source.name },
      connectChannels: (count) => this.#connectChannels(count),
      source: () => ({
        ...{ channels: this.#sources.length, uuid: this.#flow.channels.uuid },
        hasMarks: this.#flow.marksEndPasses,
      }),
      latestSection: () => this.#flow.iterables.at(-1),
      readPage: async (block, page, bytes) => {
        if (this.#failure !== undefined) throw this.#failure.error;
        await this.#guest?.store.read(block, page, bytes);
      },
    });
  }

  /**
   * Passes everything on, until the source ends the main connection.
   * @throws PumpFailure if a connection fails; MigrationError for a stream that is invalid or cannot be encoded again
   */
  async run(): Promise<void> {
    const [source, encoder] = [this.#source as Connection, this.#encoder as RelayEncoder];
    const { stream, isEnd, onMove, onStarted } = this.#options;
    try {
      const main = this.#blaming(source, () => {
        this.hasEnded = true;
      });
      for await (const item of this.#flow.read(main)) {
        // The end counts once it has been passed on.
        if (item.kind === 'eof') this.#givesEnd = true;
        else stream.note(item);
        await this.#keep(item);
        await encoder.take(item);
        if (item.kind === 'eof') stream.note(item);
        if (item.kind === 'section-end' && item.section.kind === 'start' && item.section.name === 'ram') onStarted();
        onMove();
      }
      await encoder.finish();
      await this.#flow.passEnd().catch((error: unknown) => {
        if (!isEnd()) throw error;
      });
      for (const channel of this.#channels) await channel.end();
    } catch (error) {
      encoder.abandon();
      throw error;
    }
  }

  /** Completes the file of the tee, now that the target has the guest. Never throws. */
  async finish(): Promise<void> {
    const { tee } = this.#options;
    if (tee === undefined || this.#failure !== undefined) return;
    try {
      if (this.#guest !== undefined) await this.#guest.complete(this.#guest.settle());
      await tee.commit();
    } catch (error) {
      this.#failure ??= { error: fileFailure(error) };
    }
  }

  /** Closes the channels of both sides, once everything has been passed on. */
  async closeChannels(): Promise<void> {
    await Promise.all([...this.#channels, ...this.#sources].map((channel) => channel.close()));
  }

  /** Releases everything. The connections have ended. */
  async close(): Promise<void> {
    await this.#preempt?.close();
    this.#flow.close();
    await this.#scratch?.close();
  }

  /** Keeps the content, for the tee or for deltas. A failure does not end the migration until the content is needed. */
  async #keep(item: FlowItem): Promise<void> {
    if (this.#failure !== undefined) return;
    const { tee, makeScratch, stream } = this.#options;
    // Neither channels nor postcopy carry deltas.
    const isWhole = this.#sources.length > 0 || stream.hasPostcopy;
    if (tee === undefined && item.kind === 'pages' && isWhole) return;
    try {
      if (this.#guest === undefined) {
        if (tee === undefined) this.#scratch = await makeScratch();
        const file = tee?.file ?? (this.#scratch as ByteStore);
        this.#guest = new GuestFile(file, this.#flow, this.#source as Connection);
      }
      const taken = this.#guest.take(item);
      if (taken !== undefined) await taken;
    } catch (error) {
      this.#failure = { error: fileFailure(error) };
    }
  }

  #connectChannels(count: number): ByteSink[] {
    return channelSinks(count, async () => {
      const channel = await this.#options.connect();
      this.#channels.push(channel);
      return this.#sink(channel);
    });
  }

  #sink(target: Connection): ByteSink {
    const { bandwidth } = this.#options;
    return {
      write: async (bytes) => {
        for (let done = 0; done < bytes.length; ) {
          const count = (await bandwidth?.take(bytes.length - done)) ?? bytes.length;
          await target.write(bytes.subarray(done, done + count)).catch((error: unknown) => {
            throw new PumpFailure('to', error);
          });
          done += count;
          this.written += count;
        }
      },
    };
  }

  /** A source whose failure to read names it as the one that failed. `onEnd` is called when it has ended. */
  #blaming(source: Connection, onEnd: () => void = () => {}): ByteSource {
    return {
      ...{ name: source.name, size: undefined },
      read: async (target, position) => {
        const count = await source.read(target, position).catch((error: unknown) => {
          throw new PumpFailure('from', error);
        });
        if (count === 0) onEnd();
        this.read += count;
        return count;
      },
      close: () => source.close(),
    };
  }
}
