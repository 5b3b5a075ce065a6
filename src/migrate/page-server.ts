/**
 * The page server: a VM at rest begins to run at a destination before its RAM is there.
 *
 *     page server                                                   destination: postcopy-ram on
 *       header, configuration ──────────────────────────────────────→
 *       OPEN_RETURN_PATH, PING, POSTCOPY_ADVISE, START of RAM ───────→  the PING is a question
 *                                      ←───────────────────────────── PONG
 *       [the preempt channel]
 *       discards of all pages, PING 2 ───────────────────────────────→  refuses what it cannot take
 *                                      ←───────────────────────────── PONG 2
 *     ╌╌╌╌╌ up to here nothing has happened to the guest ╌╌╌╌╌
 *       PACKAGED: LISTEN, devices, PING 3, RUN ──────────────────────→
 *                                      ←───────────────────────────── PONG 3: the guest runs
 *                                      ←───────────────────────────── REQ_PAGES
 *       what is asked for, at once; the rest behind it ──────────────→
 *       END of RAM, EOF ─────────────────────────────────────────────→
 *                                      ←───────────────────────────── SHUT 0
 *
 * Pages without data are not pushed. After END they are zero at a QEMU, which never misses them. vmferry's own destination
 * counts every page, and says so when it is asked: then they are pushed, too.
 *
 * The VM stays as it is, so any number of servers may serve it. A destination that loses its server waits in
 * postcopy-paused, and says to the next one what it has (`recover`).
 */
import { orAborted } from '../io/abort.ts';
import { systemClock } from '../io/clock.ts';
import { takeTurn } from '../io/event-loop-yield.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { throttleDefaults } from '../schema/precopy-rules.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import { type Guest, stoppedGuest } from '../vm/guest.ts';
import { pageCount } from '../vm/ram-block.ts';
import type { WritableVm } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode } from '../wire/command.ts';
import { requireVm } from '../wire/require-vm.ts';
import { ReturnType } from '../wire/return-path.ts';
import { defaultRules, Passes } from '../write/passes.ts';
import { encodeAdvise } from '../write/postcopy-switch.ts';
import { preemptArenaBytes } from '../write/preempt-writer.ts';
import { ramScanArenaBytes } from '../write/ram-scan.ts';
import { StreamWriter, writerArenaBytes } from '../write/stream-writer.ts';
import { allPagesPong, allPagesQuestion } from './answers.ts';
import { Bandwidth } from './bandwidth.ts';
import { Confirmation } from './confirmation.ts';
import { runStateOf } from './global-state.ts';
import { LiveError, nextOfServer } from './live-error.ts';
import { Outgoing } from './outgoing.ts';
import { pagesInOrder } from './page-order.ts';
import { PeerWatch } from './peer-watch.ts';
import { PostcopyPhase, type ServedPages } from './postcopy-phase.ts';
import { ProgressMeter } from './progress.ts';
import { ServedOrder } from './push-order.ts';
import { requireSendOptions, type SendLines, type SendRunning, type SentGuest } from './send-options.ts';
import type { ServedGuest, ServeOptions } from './serve-options.ts';
import { ServeMeter } from './serve-statistics.ts';
import { send } from './source.ts';
import { SourceLines } from './source-lines.ts';

/**
 * Serves a VM to a destination that waits for it, and resolves when all of it is there. A guest that was paused when it was
 * saved is sent as `send` does it, because postcopy would start it.
 *
 * @example
 * const { statistics } = await servePages(vm, { main: connection }, { onRunning: () => console.log('it runs') });
 *
 * @throws RangeError, before anything is sent, for a VM that no stream can contain and for lines without a return path;
 *   LiveError for every other end without success
 */
export async function servePages(
  content: WritableVm,
  lines: SendLines,
  options: ServeOptions = {},
): Promise<ServedGuest> {
  const running = runningOf(options);
  try {
    requireVm(content);
    requireSendOptions({ running, idleTimeoutMs: options.idleTimeoutMs }, lines);
    requireRate(options.maxPostcopyBandwidth);
  } catch (error) {
    lines.main.destroy();
    throw error;
  }
  const guest = stoppedGuest(content);
  const state = runStateOf(content.devices ?? []) ?? 'running';
  if (state !== 'running' && options.recover !== true) return sendPaused(guest, lines, running, options);
  return new PageServer(guest, lines, running, options).serve();
}

function requireRate(rate = 0): void {
  if (!(rate >= 0)) throw new RangeError(`expected bytes per second, got ${rate}`);
}

/** The parameters of a running guest, as far as they count here. */
const runningOf = ({ preempt = false, maxPostcopyBandwidth: rate = 0 }: ServeOptions): SendRunning => ({
  parameters: {
    ...{ 'max-bandwidth': 0, 'max-postcopy-bandwidth': rate, 'avail-switchover-bandwidth': 0, 'downtime-limit': 300 },
    ...throttleDefaults,
  },
  postcopy: { isWanted: () => false, preempt },
});

/** Sends all of a guest before it arrives. */
async function sendPaused(
  guest: Guest,
  lines: SendLines,
  running: SendRunning,
  options: ServeOptions,
): Promise<ServedGuest> {
  const { onProgress, onWaiting, clock = systemClock, idleTimeoutMs, signal, iterables, rules } = options;
  const meter = new ServeMeter({ sentPages: () => 0, pageSize: 4096, clock });
  const sent = await send(guest, lines, {
    ...{ onProgress, onWaiting, clock, idleTimeoutMs, signal, running },
    ...{ maxBandwidth: options.maxPostcopyBandwidth, returnPath: true },
    ...(iterables === undefined ? {} : { iterables }),
    ...(rules === undefined ? {} : { rules }),
  });
  return { ...sent, statistics: meter.now(), recorded: [], isPostcopy: false };
}

/** How long the background waits for the guest to run, in ms. */
const mostHeldMs = 100;

class PageServer {
  readonly #guest: Guest;
  readonly #options: ServeOptions;
  readonly #running: SendRunning;
  readonly #rules: ReleaseRules;
  readonly #meter: ProgressMeter;
  readonly #served: ServeMeter;
  readonly #watch: PeerWatch;
  readonly #outgoing: Outgoing;
  readonly #lines: SourceLines;
  readonly #confirmation: Confirmation;
  /** Ends everything that waits. */
  readonly #ended = new AbortController();
  #writer: StreamWriter | undefined;
  #passes: Passes | undefined;
  #phase: PostcopyPhase | undefined;
  #isRunning = false;
  #heldUntil: number | undefined;

  constructor(guest: Guest, lines: SendLines, running: SendRunning, options: ServeOptions) {
    const { clock = systemClock } = options;
    const { signal } = this.#ended;
    this.#guest = guest;
    this.#options = options;
    this.#running = running;
    this.#rules = options.rules ?? defaultRules(guest);
    this.#meter = new ProgressMeter(options, () => this.#counts());
    this.#served = new ServeMeter({ sentPages: () => this.#sentPages, pageSize: this.#pageSize, clock });
    this.#watch = new PeerWatch(options, (error) => this.#ended.abort(error));
    this.#outgoing = new Outgoing({
      ...{ bandwidth: new Bandwidth(0, clock), watch: this.#watch, clock, signal },
      onSent: () => this.#meter.tick(),
    });
    this.#lines = new SourceLines(lines, this.#outgoing, this.#watch, signal);
    this.#confirmation = new Confirmation({
      onMessage: ({ type, value }) => {
        this.#watch.moved();
        if (type === ReturnType.resumeAck || (type === ReturnType.pong && value === 3)) this.#noteRunning();
      },
      takeRequest: (message) => this.#phase?.takeRequest(message) ?? false,
    });
    for (const value of [allPagesQuestion, allPagesPong]) this.#confirmation.otherPongs.add(value);
  }

  async serve(): Promise<ServedGuest> {
    const { signal, onStart } = this.#options;
    const cancel = () => this.#ended.abort(signal?.reason);
    try {
      if (this.#options.recover === true) this.#confirmation.place = 'split';
      onStart?.(
        () => this.#served.now(),
        () => this.#served.recorded,
      );
      signal?.throwIfAborted();
      signal?.addEventListener('abort', cancel, { once: true });
      await orAborted(this.#serveAll(), this.#ended.signal);
      return this.#result(this.#meter.enter('completed'));
    } catch (error) {
      throw this.#fail(error);
    } finally {
      signal?.removeEventListener('abort', cancel);
      this.#watch.close();
      this.#ended.abort();
    }
  }

  async #serveAll(): Promise<void> {
    this.#meter.enter('setup');
    const kernel = await loadKernelFor([
      ...[writerArenaBytes, ramScanArenaBytes],
      this.#options.preempt === true ? preemptArenaBytes : 0,
    ]);
    const writer = new StreamWriter(kernel, this.#lines.mainSink(), this.#guest.framing);
    this.#writer = writer;
    const passes = this.#makePasses(writer);
    const phase = this.#makePhase(passes, writer);
    const isRecovery = this.#options.recover === true;
    if (!isRecovery) await phase.prepare();
    const lastWord = this.#confirmation.read(this.#lines.main);
    const sending = isRecovery ? this.#recover(passes, phase) : this.#begin(passes, writer, phase);
    const wait = <T>(work: Promise<T>) => this.#watch.during('the target to confirm that it has the guest', work);
    await this.#confirmation.after(sending, lastWord, wait);
    await this.#lines.hangUp(true);
  }

  #makePasses(writer: StreamWriter): Passes {
    const { iterables } = this.#options;
    const ping = { code: CommandCode.ping, payload: pingOf(allPagesQuestion) };
    const advise = { code: CommandCode.postcopyAdvise, payload: encodeAdvise(this.#guest.ram.blocks, this.#pageSize) };
    const passes = new Passes(this.#guest, writer, {
      ...(iterables === undefined ? {} : { iterables }),
      ...{ rules: this.#rules, hostPages: true },
      commands: [{ code: CommandCode.openReturnPath }, ping, advise],
    });
    this.#passes = passes;
    return passes;
  }

  #makePhase(passes: Passes, writer: StreamWriter): PostcopyPhase {
    const { clock = systemClock } = this.#options;
    const phase = new PostcopyPhase({
      ...{ guest: this.#guest, passes, writer, running: this.#running, rules: this.#rules, lines: this.#lines },
      ...{ confirmation: this.#confirmation, meter: this.#meter, clock, signal: this.#ended.signal },
      served: this.#servedPages(passes, writer),
    });
    this.#phase = phase;
    return phase;
  }

  #servedPages(passes: Passes, writer: StreamWriter): ServedPages {
    const { order = [] } = this.#options;
    return {
      order: (pages) => {
        const blocks = passes.sentBlocks;
        const pushesZeros = this.#confirmation.hasHeard(allPagesPong);
        return new ServedOrder(pages, blocks, { recorded: pagesInOrder(order, blocks), pushesZeros });
      },
      isHeld: () => this.#isHeld,
      onRequest: (request) => this.#served.asked(request),
      onServed: (request) => this.#served.served(request),
      ask: () => writer.command(CommandCode.ping, pingOf(allPagesQuestion)),
      beforePackage: () =>
        this.#watch.during('the target to take the guest', this.#confirmation.pong(2, this.#ended.signal)),
    };
  }

  /** Until the guest runs, or should run, its devices are loaded, and nothing may come before what they ask for. */
  get #isHeld(): boolean {
    const now = (this.#options.clock ?? systemClock).now();
    this.#heldUntil ??= now + mostHeldMs;
    return !this.#isRunning && now < this.#heldUntil;
  }

  /** Begins a migration, and serves it. */
  async #begin(passes: Passes, writer: StreamWriter, phase: PostcopyPhase): Promise<void> {
    await passes.begin();
    passes.markAll();
    await passes.sync();
    await writer.flush();
    // Each answer comes after something was sent, so that none waits for an acknowledgement that the system delays.
    await this.#watch.during('the target to answer', phase.prepareServed());
    this.#meter.enter('active');
    await phase.begin();
    this.#meter.enter('postcopy-active');
    await phase.sendRest();
  }

  /** Goes on with a guest whose server is gone. */
  async #recover(passes: Passes, phase: PostcopyPhase): Promise<void> {
    passes.markAll();
    await passes.sync();
    this.#meter.enter('postcopy-recover');
    await this.#watch.during('the target to say which pages it has', phase.adopt());
    await phase.sendRest();
  }

  /** The guest runs at the destination. */
  #noteRunning(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#served.begin();
    this.#phase?.release();
    void this.#countData().catch(() => {});
    this.#options.onRunning?.(this.#served.now());
  }

  /** Counts the pages with data, beside the work. */
  async #countData(): Promise<void> {
    const { ram } = this.#guest;
    let pages = 0;
    for (const block of this.#passes?.sentBlocks ?? []) {
      const end = pageCount(block);
      for (let page = 0, runs = 0; page < end; runs++) {
        const run = await ram.nextData(block, page, end);
        pages += run.end - run.first;
        page = Math.max(run.end, page + 1);
        if (runs % 256 === 255) await takeTurn();
        if (this.#ended.signal.aborted) return;
      }
    }
    this.#served.dataPages = pages;
  }

  #result(progress: SentGuest['progress']): ServedGuest {
    const blocks = (this.#phase?.sent ?? []).map(({ block, dataPages, records }) => {
      return { block, dataPages, zeroPages: pageCount(block) - dataPages, absentPages: 0, records };
    });
    const { statistics, recorded } = { statistics: this.#served.now(), recorded: this.#served.recorded };
    const length = this.#writer?.length ?? 0;
    return { ...{ isConfirmed: true, length, channels: [], blocks, progress }, statistics, recorded, isPostcopy: true };
  }

  /** Breaks all lines, and makes the error that says where the guest is. */
  #fail(cause: unknown): LiveError {
    const { signal } = this.#options;
    this.#ended.abort(cause);
    this.#lines.destroy();
    const { place } = this.#confirmation;
    const error = new LiveError(place, nextOfServer[place], cause, `served-${place}`);
    const isCancelled = signal?.aborted === true && cause === signal.reason;
    this.#meter.enter(isCancelled ? 'cancelled' : 'failed', isCancelled ? undefined : error.message);
    return error;
  }

  get #pageSize(): number {
    return this.#guest.ram.blocks[0]?.pageSize ?? 4096;
  }

  /** Pages with data that were sent. */
  get #sentPages(): number {
    return (this.#phase?.sent ?? []).reduce((sum, { dataPages }) => sum + dataPages, 0);
  }

  #counts() {
    const passes = this.#passes;
    if (passes === undefined) return undefined;
    const { remainingBytes } = this.#served.now();
    return {
      ...{ transferred: this.#outgoing.sent, remaining: remainingBytes ?? passes.remainingBytes },
      ...{ total: passes.totalBytes, duplicate: passes.duplicate, normal: passes.normal },
      ...{ 'page-size': this.#pageSize, 'dirty-sync-count': passes.syncs, 'multifd-bytes': 0 },
      'postcopy-requests': this.#phase?.requested ?? 0,
    };
  }
}

const pingOf = (value: number) => new ByteWriter().u32(value).bytes();
