/**
 * The source of a live migration: sends a guest to a destination that waits for it, and learns whether it arrived.
 *
 *     source                                                        destination
 *       header, configuration ─────────────────────────────────────→
 *       OPEN_RETURN_PATH, PING 1 ──────────────────────────────────→
 *                                      ←───────────────────────────── PONG 1
 *       START of RAM ──────────────────────────────────────────────→
 *       PARTs; packets on the multifd channels ────────────────────→   a running guest: pass after pass (precopy.ts)
 *                                      ←───────────────────────────── SWITCHOVER_ACK, if that is asked for
 *       the guest is stopped ╌╌╌ status pre-switchover, if that is asked for
 *       SWITCHOVER_START, END of RAM, devices ─────────────────────→
 *     ╌╌╌╌╌ up to here the guest is at the source, whatever breaks ╌╌╌╌╌
 *       EOF, description ──────────────────────────────────────────→   loads the devices
 *                                      ←───────────────────────────── SHUT 0: the guest is there
 *                                                                     SHUT n: it was refused
 *
 * A line that can only be written has no return path. Then the source ends it after the description, and cannot know
 * whether the guest arrived.
 *
 * What is sent, and in which order, is decided by `write/passes.ts`. Here are the clock, the bandwidth and the peer.
 */
import type { ByteSink } from '../io/byte-source.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import { PortableCodecs } from '../io/portable-codecs.ts';
import { settledWithin } from '../io/time-limit.ts';
import { loadKernelFor } from '../kernel/kernel.ts';
import type { Guest } from '../vm/guest.ts';
import { CommandCode } from '../wire/command.ts';
import { requireVm } from '../wire/require-vm.ts';
import { type ReturnMessage, ReturnType } from '../wire/return-path.ts';
import { MultifdWriter, multifdArenaBytes } from '../write/multifd-writer.ts';
import { defaultRules, Passes, type WrittenBlock } from '../write/passes.ts';
import { ramScanArenaBytes } from '../write/ram-scan.ts';
import { StreamWriter, writerArenaBytes } from '../write/stream-writer.ts';
import { XbzrleCache, xbzrleArenaBytes } from '../write/xbzrle-cache.ts';
import { Bandwidth } from './bandwidth.ts';
import { type GuestPlace, LiveError } from './live-error.ts';
import { channelSinks, Outgoing } from './outgoing.ts';
import { PeerWatch } from './peer-watch.ts';
import { Precopy } from './precopy.ts';
import { type MigrationProgress, type MigrationStatus, ProgressMeter, xbzrleMember } from './progress.ts';
import { readReturnPath } from './return-path.ts';
import {
  requireSendOptions,
  type SendLines,
  type SendOptions,
  type SendRunning,
  type SentGuest,
} from './send-options.ts';

/** The value of the only PING. */
const pingValue = 1;
/** How long a destination that broke off may take to say why, and to hang up after a success. */
const lastWordMs = 2000;

/**
 * Sends a guest. It is stopped after the first pass, or, with `running`, when so little is left that `downtime-limit`
 * suffices for it. If that fails, the guest has perhaps been stopped, and may run on.
 *
 * @example
 * const { isConfirmed } = await send(stoppedGuest(vm), { main: connection });
 *
 * @throws RangeError, before anything is sent, for a guest that no stream can contain and for options out of range;
 *   LiveError for every other end without success. Its `cause` is a PeerError, the reason of the signal, or an error of
 *   the guest.
 */
export async function send(guest: Guest, lines: SendLines, options: SendOptions = {}): Promise<SentGuest> {
  try {
    requireVm(guest);
    requireSendOptions(options, lines);
  } catch (error) {
    lines.main.destroy();
    throw error;
  }
  return new Source(guest, lines, options).send();
}

class Source {
  readonly #guest: Guest;
  readonly #lines: SendLines;
  readonly #options: SendOptions;
  readonly #meter: ProgressMeter;
  readonly #watch: PeerWatch;
  readonly #outgoing: Outgoing;
  /** Every line that is open. */
  readonly #open: Connection[];
  /** Bytes of each channel. */
  readonly #channelBytes: number[] = [];
  /** Ends everything that waits. */
  readonly #ended = new AbortController();
  #passes: Passes | undefined;
  #precopy: Precopy | undefined;
  #cache: XbzrleCache | undefined;
  #mayGo = false;
  #stoppedAt = 0;
  readonly #clock: Clock;
  #multifd: MultifdWriter | undefined;
  #blocks: readonly WrittenBlock[] = [];
  #isHangingUp = false;
  #place: Exclude<GuestPlace, 'split'> = 'source';

  constructor(guest: Guest, lines: SendLines, options: SendOptions) {
    const { clock = systemClock, maxBandwidth = 0 } = options;
    this.#guest = guest;
    this.#lines = lines;
    this.#options = options;
    this.#clock = clock;
    this.#open = [lines.main];
    this.#meter = new ProgressMeter(
      options,
      () => this.#counts(),
      (status) => this.#members(status),
    );
    options.running?.onStart?.(() => this.#meter.now());
    this.#watch = new PeerWatch(options, (error) => this.#ended.abort(error));
    this.#outgoing = new Outgoing({
      ...{ bandwidth: new Bandwidth(maxBandwidth, clock), watch: this.#watch, clock, signal: this.#ended.signal },
      onSent: () => this.#meter.tick(),
    });
  }

  async send(): Promise<SentGuest> {
    const { signal } = this.#options;
    const cancel = () => this.#ended.abort(signal?.reason);
    const ended = new Promise<never>((_, reject) => {
      this.#ended.signal.addEventListener('abort', () => reject(this.#ended.signal.reason), { once: true });
    });
    ended.catch(() => {});
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', cancel, { once: true });
      const sent = await Promise.race([this.#sendAll(), ended]);
      return { ...sent, progress: this.#meter.enter('completed') };
    } catch (error) {
      throw this.#fail(error);
    } finally {
      signal?.removeEventListener('abort', cancel);
      this.#watch.close();
      this.#ended.abort();
    }
  }

  async #sendAll(): Promise<Omit<SentGuest, 'progress'>> {
    const { main } = this.#lines;
    const { returnPath = main.canRead && main.canWrite, multifd, running } = this.#options;
    this.#meter.enter('setup');
    const cacheSize = running?.xbzrle?.cacheSize;
    const cacheBytes = cacheSize === undefined ? 0 : xbzrleArenaBytes(cacheSize);
    const needs = [writerArenaBytes, ramScanArenaBytes, cacheBytes, multifd === undefined ? 0 : multifdArenaBytes];
    const kernel = await loadKernelFor(needs);
    const writer = new StreamWriter(kernel, this.#outgoing.sink(main), this.#guest.framing);
    if (cacheSize !== undefined) this.#cache = new XbzrleCache(kernel, { cacheSize, pageSize: this.#pageSize });
    await this.#openChannels(writer);
    const passes = this.#makePasses(writer, returnPath);
    if (running !== undefined) this.#precopy = this.#makePrecopy(passes, writer, running);
    const lastWord = returnPath ? this.#readReturnPath(main) : undefined;
    if (lastWord === undefined && main.canRead) void this.#discard(main);
    const sending = this.#sendPasses(passes, writer);
    await (lastWord === undefined ? sending : this.#untilConfirmed(sending, lastWord));
    await this.#hangUp(returnPath);
    const xbzrle = this.#cache === undefined ? {} : { xbzrle: this.#cache.statistics };
    const counts = { length: writer.length, channels: this.#channelBytes, blocks: this.#blocks };
    return { isConfirmed: returnPath, ...counts, ...xbzrle };
  }

  async #openChannels(writer: StreamWriter): Promise<void> {
    const { multifd, rules = defaultRules(this.#guest) } = this.#options;
    const { openChannel } = this.#lines;
    if (multifd === undefined || openChannel === undefined) return;
    const { channels, compression = 'none', level = 1, codecs = new PortableCodecs() } = multifd;
    const uuid = multifd.uuid ?? this.#guest.configuration?.uuid;
    const sinks = channelSinks(channels, () => this.#openChannel(openChannel));
    this.#multifd = await MultifdWriter.open(writer, sinks, {
      ...{ compression, level, codecs, rules, pageSize: this.#pageSize },
      ...(uuid === undefined ? {} : { uuid }),
    });
  }

  async #openChannel(connect: () => Promise<Connection>): Promise<ByteSink> {
    const line = await connect();
    if (this.#ended.signal.aborted) line.destroy();
    this.#ended.signal.throwIfAborted();
    this.#open.push(line);
    const id = this.#channelBytes.push(0) - 1;
    return this.#outgoing.sink(line, (bytes) => {
      this.#channelBytes[id] = (this.#channelBytes[id] as number) + bytes;
    });
  }

  #makePasses(writer: StreamWriter, returnPath: boolean): Passes {
    const { iterables, rules } = this.#options;
    const ping = { code: CommandCode.ping, payload: new Uint8Array([0, 0, 0, pingValue]) };
    const passes = new Passes(this.#guest, writer, {
      ...(iterables === undefined ? {} : { iterables }),
      ...(rules === undefined ? {} : { rules }),
      ...(this.#multifd === undefined ? {} : { ramWriter: this.#multifd }),
      cache: this.#cache,
      commands: returnPath ? [{ code: CommandCode.openReturnPath }, ping] : [],
      beforeEnd: async () => {
        await writer.flush();
        this.#ended.signal.throwIfAborted();
        this.#place = 'either';
      },
      // A destination that waits for a description does not say that it has the guest. A capture of postcopy has none.
      ...(returnPath ? { otherwiseDescription: '{}' } : {}),
    });
    this.#passes = passes;
    return passes;
  }

  #makePrecopy(passes: Passes, writer: StreamWriter, running: SendRunning): Precopy {
    const clock = this.#clock;
    const { parameters, throttle, forcesSyncs = false, switchoverAck = false, onSync = () => {} } = running;
    return new Precopy(passes, {
      ...{ parameters, throttle, forcesSyncs, onSync, clock, pageSize: this.#pageSize, signal: this.#ended.signal },
      made: () => writer.length + this.#channelBytes.reduce((sum, bytes) => sum + bytes, 0),
      flush: () => writer.flush(),
      maySwitchOver: () => !switchoverAck || this.#mayGo,
      onPeriod: (pages) => this.#cache?.endPeriod(pages),
    });
  }

  async #sendPasses(passes: Passes, writer: StreamWriter): Promise<void> {
    const precopy = this.#precopy;
    const sync = () => (precopy === undefined ? passes.sync() : precopy.sync());
    await passes.begin();
    if (precopy !== undefined) passes.markAll();
    await sync();
    await writer.flush();
    this.#meter.enter('active');
    if (precopy === undefined) this.#blocks = await passes.sendAll();
    else await precopy.run();
    await this.#guest.stop();
    this.#stoppedAt = this.#clock.now();
    await this.#pause();
    this.#meter.enter('device');
    await sync();
    await passes.finish();
    await this.#multifd?.close();
  }

  /** Waits before the switchover, if that is asked for. The guest is stopped. */
  async #pause(): Promise<void> {
    const beforeSwitchover = this.#options.running?.beforeSwitchover;
    if (beforeSwitchover === undefined) return;
    this.#meter.enter('pre-switchover');
    await beforeSwitchover();
    this.#ended.signal.throwIfAborted();
  }

  /** Reads the return path until the destination says that it has the guest. */
  async #readReturnPath(main: Connection): Promise<void> {
    for await (const message of readReturnPath(main)) {
      this.#watch.moved();
      if (message.type === ReturnType.shut) return this.#takeLastWord(message);
      const isExpected = message.type === ReturnType.pong && message.value === pingValue;
      // A destination with switchover-ack sends one without being asked.
      if (message.type === ReturnType.switchoverAck) this.#mayGo = true;
      this.#precopy?.wake();
      if (!isExpected && message.type !== ReturnType.switchoverAck) throw invalid(message);
    }
    throw new PeerError('the target hung up before it had the guest: Channel error: Input/output error');
  }

  #takeLastWord({ value = 0 }: ReturnMessage): void {
    if (value !== 0) {
      this.#place = 'source';
      throw new RefusedError(`Sibling indicated error ${value}`);
    }
    if (this.#place === 'source') throw new PeerError('the target ended the migration before it had the guest');
    this.#place = 'target';
  }

  /** A destination that breaks off ends the sending. What it said just before counts, because it is the reason. */
  async #untilConfirmed(sending: Promise<void>, lastWord: Promise<void>): Promise<void> {
    const confirmed = sending.then(() => this.#watch.during('the target to confirm that it has the guest', lastWord));
    try {
      await Promise.race([confirmed, lastWord]);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      let cause = error;
      const heard = lastWord.catch((reason) => {
        if (reason instanceof RefusedError) cause = reason;
      });
      await settledWithin(heard, lastWordMs);
      if (this.#place !== 'target') throw cause;
    }
  }

  /** Reads what nobody needs, such as the tickets of TLS: a line that is closed with unread bytes loses what it sent. */
  async #discard(main: Connection): Promise<void> {
    const buffer = new Uint8Array(1024);
    try {
      for (let at = 0, count = 1; count > 0 && !this.#isHangingUp; at += count) count = await main.read(buffer, at);
    } catch {
      // What is written to the line fails, too.
    }
  }

  /** Ends all lines in good order. */
  async #hangUp(isConfirmed: boolean): Promise<void> {
    this.#isHangingUp = true;
    const closed = Promise.all(this.#open.map((line) => line.close()));
    if (!isConfirmed) {
      await this.#watch.during('the target to take the end', closed);
      return;
    }
    // The guest is there, whatever becomes of the lines.
    closed.catch(() => {});
    await settledWithin(
      closed.then(() => {}),
      lastWordMs,
    );
    for (const line of this.#open) line.destroy();
  }

  /** Breaks all lines, and makes the error that says where the guest is. */
  #fail(cause: unknown): LiveError {
    const { signal } = this.#options;
    this.#ended.abort(cause);
    for (const line of this.#open) line.destroy();
    this.#multifd?.abandon();
    const error = new LiveError(this.#place, nextSteps[this.#place], cause);
    const isCancelled = signal?.aborted === true && cause === signal.reason;
    this.#meter.enter(isCancelled ? 'cancelled' : 'failed', isCancelled ? undefined : error.message);
    return error;
  }

  /** What `query-migrate` has of a running guest, besides `ram`. */
  #members(status: MigrationStatus): Partial<MigrationProgress> {
    const precopy = this.#precopy;
    if (precopy === undefined) return {};
    const cache = this.#cache === undefined ? {} : { 'xbzrle-cache': xbzrleMember(this.#cache.statistics) };
    if (status === 'completed') return { downtime: Math.round(this.#clock.now() - this.#stoppedAt), ...cache };
    return { ...precopy.members, ...cache };
  }

  get #pageSize(): number {
    return this.#guest.ram.blocks[0]?.pageSize ?? 4096;
  }

  #counts() {
    const passes = this.#passes;
    if (passes === undefined) return undefined;
    return {
      transferred: this.#outgoing.sent,
      remaining: passes.remainingBytes,
      total: passes.totalBytes,
      duplicate: passes.duplicate,
      normal: passes.normal,
      'page-size': this.#pageSize,
      'dirty-sync-count': passes.syncs,
      'multifd-bytes': this.#channelBytes.reduce((sum, bytes) => sum + bytes, 0),
      ...(this.#precopy === undefined ? {} : { 'dirty-pages-rate': this.#precopy.figures['dirty-pages-rate'] }),
    };
  }
}

/** The destination said that it refuses the guest. */
class RefusedError extends PeerError {}

/** QEMU's words for a message that does not belong here. */
function invalid({ type, length }: ReturnMessage): PeerError {
  const [kind, payload] = [type, length - 4].map((each) => each.toString(16).padStart(4, '0'));
  return new PeerError(`RP: Received invalid message 0x${kind} length 0x${payload}`);
}

const nextSteps = {
  source: 'the guest was not started at the target, whose own messages may say why; it can be sent again',
  target: 'the target has the guest: do not start it anywhere else',
  either: 'the guest may run at the target: look there (query-migrate, query-status) before you start it anywhere else',
};
