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
 * With postcopy the guest is started at the destination before all RAM was sent, and the rest follows (postcopy-phase.ts).
 *
 * A line that can only be written has no return path. Then the source ends it after the description, and cannot know
 * whether the guest arrived.
 *
 * What is sent, and in which order, is decided by `write/passes.ts`. Here are the clock, the bandwidth and the peer.
 */
import { orAborted } from '../io/abort.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { PeerError } from '../io/connection.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { Guest } from '../vm/guest.ts';
import { CommandCode } from '../wire/command.ts';
import { requireVm } from '../wire/require-vm.ts';
import type { MultifdWriter } from '../write/multifd-writer.ts';
import { defaultRules, Passes, type WrittenBlock } from '../write/passes.ts';
import { encodeAdvise } from '../write/postcopy-switch.ts';
import { StreamWriter } from '../write/stream-writer.ts';
import type { XbzrleCache } from '../write/xbzrle-cache.ts';
import { BackgroundSnapshot } from './background-snapshot.ts';
import { Bandwidth } from './bandwidth.ts';
import { ColoPrimary, type ColoPrimaryHost } from './colo-primary.ts';
import { Confirmation } from './confirmation.ts';
import { LiveError, nextOfSource } from './live-error.ts';
import { Outgoing } from './outgoing.ts';
import { PeerWatch } from './peer-watch.ts';
import { PostcopyPhase } from './postcopy-phase.ts';
import { Precopy } from './precopy.ts';
import { type MigrationProgress, type MigrationStatus, ProgressMeter, xbzrleMember } from './progress.ts';
import { RamBytes } from './ram-bytes.ts';
import {
  requireSendOptions,
  type SendLines,
  type SendOptions,
  type SendRunning,
  type SentGuest,
} from './send-options.ts';
import { SourceLines } from './source-lines.ts';
import { openSourceWriter, type SourceWriter } from './source-writer.ts';

/** The value of the first PING. */
const pingValue = 1;

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
  readonly #options: SendOptions;
  readonly #clock: Clock;
  readonly #meter: ProgressMeter;
  readonly #watch: PeerWatch;
  readonly #outgoing: Outgoing;
  readonly #lines: SourceLines;
  readonly #confirmation: Confirmation;
  /** Ends everything that waits. */
  readonly #ended = new AbortController();
  readonly #ramBytes = new RamBytes();
  #writer: SourceWriter | undefined;
  #passes: Passes | undefined;
  #precopy: Precopy | undefined;
  #postcopy: PostcopyPhase | undefined;
  readonly #snapshot: BackgroundSnapshot | undefined;
  #cache: XbzrleCache | undefined;
  #multifd: MultifdWriter | undefined;
  #blocks: readonly WrittenBlock[] = [];
  /** When the guest was stopped, and how long it stood still. */
  #stoppedAt: number | undefined;
  #downtime: number | undefined;

  constructor(guest: Guest, lines: SendLines, options: SendOptions) {
    const { clock = systemClock, background } = options;
    // The limit does not hold for a background snapshot, as in QEMU.
    const maxBandwidth = background === undefined ? options.maxBandwidth : 0;
    this.#snapshot = background === undefined ? undefined : new BackgroundSnapshot(guest, background, clock);
    this.#guest = this.#snapshot?.guest ?? guest;
    this.#options = options;
    this.#clock = clock;
    this.#meter = new ProgressMeter(
      options,
      () => this.#counts(),
      (status) => this.#members(status),
      () => this.#passes?.deltas ?? 0,
    );
    for (const each of [options.running, background]) each?.onStart?.(() => this.#meter.now());
    this.#watch = new PeerWatch(options, (error) => this.#ended.abort(error));
    const { signal } = this.#ended;
    this.#outgoing = new Outgoing({
      ...{ bandwidth: new Bandwidth(maxBandwidth ?? 0, clock), watch: this.#watch, clock, signal },
      onSent: () => this.#meter.tick(),
    });
    this.#lines = new SourceLines(lines, this.#outgoing, this.#watch, signal);
    this.#confirmation = new Confirmation({
      onMessage: () => {
        this.#watch.moved();
        this.#precopy?.wake();
      },
      takeRequest: (message) => this.#postcopy?.takeRequest(message) ?? false,
    });
  }

  async send(): Promise<SentGuest> {
    const { signal } = this.#options;
    const cancel = () => this.#ended.abort(signal?.reason);
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', cancel, { once: true });
      const sent = await orAborted(this.#sendAll(), this.#ended.signal);
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
    const { returnPath = main.canRead && main.canWrite && this.#snapshot === undefined, running } = this.#options;
    this.#meter.enter('setup');
    if (running?.stopsFirst === true) await this.#stop();
    const writer = await this.#open();
    const passes = this.#makePasses(writer, returnPath);
    if (running !== undefined) this.#precopy = this.#makePrecopy(passes, writer, running);
    if (running?.postcopy !== undefined && writer instanceof StreamWriter)
      this.#postcopy = this.#makePostcopy(passes, writer, running);
    await this.#postcopy?.prepare();
    const lastWord = returnPath && main.canRead ? this.#confirmation.read(main) : undefined;
    if (lastWord === undefined && main.canRead && running?.colo === undefined) void this.#lines.discard();
    const sending = this.#sendPasses(passes, writer);
    await (lastWord === undefined ? sending : this.#untilConfirmed(sending, lastWord));
    // So QEMU 10.0 ends a migration into a file that is to answer: when it is all there.
    if (returnPath && lastWord === undefined) throw new PeerError('Unable to read from file: Bad file descriptor');
    if (running?.colo !== undefined && writer instanceof StreamWriter)
      await this.#checkpoints(passes, writer, running.colo);
    else await this.#lines.hangUp(returnPath);
    const xbzrle = this.#cache === undefined ? {} : { xbzrle: this.#cache.statistics };
    const blocks = this.#precopy === undefined ? this.#blocks : passes.sentOf;
    const counts = { length: writer.length, channels: this.#lines.channelBytes, blocks };
    return { isConfirmed: returnPath, ...counts, ...xbzrle };
  }

  async #open(): Promise<SourceWriter> {
    const { writer, cache, multifd } = await openSourceWriter({
      ...{ options: this.#options, lines: this.#lines, outgoing: this.#outgoing },
      ...{ guest: this.#guest, rules: this.#rules, pageSize: this.#pageSize },
    });
    this.#writer = writer;
    this.#cache = cache;
    this.#multifd = multifd;
    return writer;
  }

  #makePasses(writer: SourceWriter, returnPath: boolean): Passes {
    const { iterables, rules, running, zeroPageDetection, mappedRam } = this.#options;
    const hasPostcopy = running?.postcopy !== undefined;
    const commands: { code: number; payload?: Uint8Array }[] = [];
    if (returnPath && mappedRam === undefined) commands.push({ code: CommandCode.openReturnPath }, ping);
    if (running?.announcesColo === true) commands.push({ code: CommandCode.enableColo });
    if (hasPostcopy) {
      const payload = encodeAdvise(this.#guest.ram.blocks, this.#pageSize);
      commands.push({ code: CommandCode.postcopyAdvise, payload });
    }
    const passes = new Passes(this.#guest, writer, {
      ...(iterables === undefined ? {} : { iterables }),
      ...(rules === undefined ? {} : { rules }),
      ...(this.#multifd === undefined ? {} : { ramWriter: this.#multifd }),
      ...{ cache: this.#cache, commands, hostPages: hasPostcopy, findsZeros: zeroPageDetection !== 'none' },
      beforeEnd: async () => {
        await writer.flush();
        this.#ended.signal.throwIfAborted();
        // Nobody loads a file that has not come to its end. A background snapshot leaves the guest here.
        const staysHere =
          this.#options.mappedRam !== undefined || this.#snapshot !== undefined || running?.colo !== undefined;
        if (!staysHere) this.#confirmation.place = 'either';
      },
      // A destination that waits for a description does not say that it has the guest. A capture of postcopy has none.
      ...(returnPath || running?.colo !== undefined ? { otherwiseDescription: '{}' } : {}),
    });
    this.#passes = passes;
    return passes;
  }

  #makePrecopy(passes: Passes, writer: SourceWriter, running: SendRunning): Precopy {
    const clock = this.#clock;
    const { parameters, throttle, limitVcpus, forcesSyncs = false, switchoverAck = false, onSync = () => {} } = running;
    return new Precopy(passes, {
      ...{ parameters, throttle, limitVcpus, forcesSyncs, onSync, clock },
      ...{ pageSize: this.#pageSize, signal: this.#ended.signal },
      made: () => writer.length + this.#lines.multifdBytes,
      flush: () => writer.flush(),
      maySwitchOver: () => !switchoverAck || this.#confirmation.mayGo,
      isPostcopyWanted: () => running.postcopy?.isWanted() ?? false,
      onPeriod: (pages) => this.#cache?.endPeriod(pages),
      onWindow: () => this.#meter.endWindow(),
    });
  }

  #makePostcopy(passes: Passes, writer: StreamWriter, running: SendRunning): PostcopyPhase {
    return new PostcopyPhase({
      ...{ guest: this.#guest, passes, writer, running, rules: this.#rules, lines: this.#lines, meter: this.#meter },
      ...{ confirmation: this.#confirmation, clock: this.#clock, signal: this.#ended.signal },
    });
  }

  async #sendPasses(passes: Passes, writer: SourceWriter): Promise<void> {
    const precopy = this.#precopy;
    await passes.begin();
    if (precopy !== undefined) passes.markAll();
    if (this.#snapshot === undefined) await this.#sync();
    await writer.flush();
    this.#meter.enter('active');
    if (this.#snapshot !== undefined) return this.#snapshot.send(passes, writer);
    if (precopy === undefined) this.#blocks = await passes.sendAll();
    else if ((await precopy.run()) === 'postcopy') return this.#switchToPostcopy();
    await this.#stop();
    await this.#pause();
    this.#meter.enter('device');
    await this.#sync();
    await passes.finish();
    if (this.#options.running?.colo === undefined) await this.#multifd?.close();
  }

  /** Goes on with checkpoints, until the host says that they end. */
  async #checkpoints(passes: Passes, writer: StreamWriter, host: ColoPrimaryHost): Promise<void> {
    const colo = new ColoPrimary({
      ...{ host, guest: this.#guest, passes, writer, line: this.#lines.main, clock: this.#clock },
      sync: () => this.#sync(),
      reopen: () => writer.reconnect(this.#lines.mainSink()),
      signal: this.#ended.signal,
    });
    this.#meter.enter('colo');
    try {
      await colo.run();
    } finally {
      this.#multifd?.abandon();
      this.#lines.destroy();
    }
  }

  async #sync(): Promise<void> {
    await (this.#precopy ?? this.#passes)?.sync();
  }

  async #stop(): Promise<void> {
    if (this.#stoppedAt !== undefined) return;
    this.#noteRamBytes();
    await this.#guest.stop();
    this.#stoppedAt = this.#clock.now();
  }

  /** Lets the guest run at the destination before all pages are there, and sends these. */
  async #switchToPostcopy(): Promise<void> {
    const { postcopy, beforeSwitchover } = this.#options.running ?? {};
    const announcesFirst = postcopy?.announcesFirst === true;
    if (announcesFirst && beforeSwitchover === undefined) this.#meter.enter('postcopy-active');
    await this.#stop();
    await this.#pause();
    if (announcesFirst && beforeSwitchover !== undefined) this.#meter.enter('postcopy-active');
    if (!announcesFirst) this.#meter.enter('device');
    await this.#sync();
    if (!announcesFirst) this.#meter.enter('postcopy-active');
    await this.#postcopy?.begin();
    this.#downtime = this.#standing;
    await this.#postcopy?.sendRest();
  }

  /** Waits before the switchover, if that is asked for. The guest is stopped. */
  async #pause(): Promise<void> {
    const beforeSwitchover = this.#options.running?.beforeSwitchover;
    if (beforeSwitchover === undefined) return;
    this.#meter.enter('pre-switchover');
    await beforeSwitchover();
    this.#ended.signal.throwIfAborted();
  }

  /** Waits until the destination has the guest. After a break in postcopy it goes on over other lines, if it can. */
  async #untilConfirmed(sending: Promise<void>, lastWord: Promise<void>): Promise<void> {
    const wait = <T>(work: Promise<T>) => this.#watch.during('the target to confirm that it has the guest', work);
    try {
      await this.#confirmation.after(sending, lastWord, wait);
    } catch (error) {
      if (this.#postcopy === undefined) throw error;
      await this.#postcopy.recover(error, sending, wait);
    }
  }

  /** Breaks all lines, and makes the error that says where the guest is. */
  #fail(cause: unknown): LiveError {
    const { signal } = this.#options;
    this.#ended.abort(cause);
    this.#lines.destroy();
    this.#multifd?.abandon();
    const { place } = this.#confirmation;
    const error = new LiveError(place, nextOfSource[place], cause);
    const isCancelled = signal?.aborted === true && cause === signal.reason;
    this.#meter.enter(isCancelled ? 'cancelled' : 'failed', isCancelled ? undefined : error.message);
    return error;
  }

  /** How long the guest has stood still, in ms. */
  get #standing(): number | undefined {
    return this.#stoppedAt === undefined ? undefined : Math.round(this.#clock.now() - this.#stoppedAt);
  }

  /** What `query-migrate` has of a running guest, besides `ram`. */
  #members(status: MigrationStatus): Partial<MigrationProgress> {
    const precopy = this.#precopy;
    if (this.#snapshot !== undefined) return this.#snapshot.members;
    if (precopy === undefined) return {};
    const cache = this.#cache === undefined ? {} : { 'xbzrle-cache': xbzrleMember(this.#cache.statistics) };
    if (status !== 'completed' && !status.startsWith('postcopy')) return { ...precopy.members, ...cache };
    return { downtime: this.#downtime ?? this.#standing ?? 0, ...cache };
  }

  get #rules(): ReleaseRules {
    return this.#options.rules ?? defaultRules(this.#guest);
  }

  get #pageSize(): number {
    return this.#guest.ram.blocks[0]?.pageSize ?? 4096;
  }

  /** Counts the bytes of RAM since the last call, as those of the present phase. */
  #noteRamBytes(): void {
    const { mappedRam, multifd } = this.#options;
    // What channels write is not counted by phase.
    if (mappedRam !== undefined && multifd !== undefined) return;
    const total = (this.#writer?.ramBytes ?? 0) + (this.#postcopy?.urgentBytes ?? 0);
    const { isRunning = () => this.#stoppedAt === undefined } = this.#options.running ?? {};
    const isSplit = this.#postcopy?.hasBegun === true;
    this.#ramBytes.note(total, isRunning() ? 'precopy' : isSplit ? 'postcopy' : 'downtime');
  }

  #counts() {
    const passes = this.#passes;
    if (passes === undefined) return undefined;
    this.#noteRamBytes();
    const { mappedRam, multifd } = this.#options;
    const isParallel = mappedRam !== undefined && multifd !== undefined;
    return {
      transferred: this.#outgoing.sent,
      remaining: passes.remainingBytes,
      total: passes.totalBytes,
      duplicate: passes.duplicate,
      normal: passes.normal,
      'page-size': this.#pageSize,
      'dirty-sync-count': passes.syncs,
      'multifd-bytes': isParallel ? passes.normal * this.#pageSize : this.#lines.multifdBytes,
      ...(this.#precopy === undefined ? {} : { 'dirty-pages-rate': this.#precopy.figures['dirty-pages-rate'] }),
      ...this.#ramBytes.members,
      'postcopy-requests': this.#postcopy?.requested ?? 0,
      ...(this.#snapshot === undefined ? {} : { 'dirty-pages-rate': 0 }),
    };
  }
}

const ping = { code: CommandCode.ping, payload: new Uint8Array([0, 0, 0, pingValue]) };
