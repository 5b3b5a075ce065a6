/**
 * Postcopy as a source: what lies between the stop of the guest and the last word of the destination.
 *
 *     prepare ─→ begin ─→ sendRest ─→ (confirmed)
 *                  │          │
 *                  ╰── split ─┴── the line breaks ──→ postcopy-paused ─→ other lines ─→ postcopy-recover ─┐
 *                                        ↑                                                │               │
 *                                        ╰────────────────── broken again ────────────────╯   sendRest ←──┘
 *
 *     recovery   RECV_BITMAP of each block ──────────→
 *                                          ←────────── RECV_BITMAP with the pages that have arrived
 *                POSTCOPY_RESUME ─────────────────────→
 *                                          ←────────── RESUME_ACK
 *
 * From the package on the destination may run the guest, and the pages that it lacks are here only. So nothing ends this
 * side then, unless its caller gives up.
 */
import type { Clock } from '../io/clock.ts';
import { settledWithin } from '../io/time-limit.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { Guest } from '../vm/guest.ts';
import { CommandCode } from '../wire/command.ts';
import { encodeRecvBitmap } from '../wire/postcopy.ts';
import { type ReturnMessage, ReturnType } from '../wire/return-path.ts';
import type { Passes } from '../write/passes.ts';
import { PostcopyPasses } from '../write/postcopy-passes.ts';
import { PreemptWriter } from '../write/preempt-writer.ts';
import type { StreamWriter } from '../write/stream-writer.ts';
import type { Confirmation } from './confirmation.ts';
import { type PageRequest, PageRequests } from './page-requests.ts';
import { Postcopy } from './postcopy.ts';
import type { ProgressMeter } from './progress.ts';
import { InTurn, type PushOrder } from './push-order.ts';
import type { SendLines, SendRunning } from './send-options.ts';
import type { SourceLines } from './source-lines.ts';

/** What a page server does otherwise than a source whose guest has run. */
export interface ServedPages {
  /** In which order the background goes. Called once for each set of lines. */
  order: (pages: PostcopyPasses) => PushOrder;
  /** The background waits while this is true. */
  isHeld: () => boolean;
  /** Called when a request came, and when it was answered. */
  onRequest: (request: PageRequest) => void;
  onServed: (request: PageRequest) => void;
  /** Called before the bitmaps of a recovery are asked for. */
  ask: () => Promise<void>;
  /** Called before the package. It may wait for the destination, which gets everything before this. */
  beforePackage: () => Promise<void>;
}

export interface PostcopyPhaseOptions {
  guest: Guest;
  passes: Passes;
  writer: StreamWriter;
  running: SendRunning;
  rules: ReleaseRules;
  lines: SourceLines;
  confirmation: Confirmation;
  meter: ProgressMeter;
  clock: Clock;
  /** The guest is served from a file. */
  served?: ServedPages | undefined;
  /** Ends the migration. */
  signal: AbortSignal;
}

/** How long a destination may take to answer before the preempt channel is opened, in ms. */
const answerMs = 2000;

/** Waits for the destination while it is watched. */
type Wait = <T>(work: Promise<T>) => Promise<T>;

export class PostcopyPhase {
  /** The package is being sent, or was. */
  hasBegun = false;
  readonly #options: PostcopyPhaseOptions;
  readonly #pages: PostcopyPasses;
  readonly #requests: PageRequests;
  #preempt: PreemptWriter | undefined;
  /** The destination waits for the preempt channel before it loads anything, and for an EOS at its end: QEMU 7.2. */
  #isPreemptFirst: boolean;
  #loop: Postcopy | undefined;
  /** Ends what waits for the present lines. */
  #attempt: AbortController;

  constructor(options: PostcopyPhaseOptions) {
    const { guest, writer, passes, running } = options;
    this.#options = options;
    this.#isPreemptFirst = options.rules.preemptFirst;
    this.#pages = new PostcopyPasses(guest, writer, passes, running.postcopy?.discard);
    this.#requests = new PageRequests(passes.sentBlocks, options.served?.onRequest, () => options.clock.now());
    this.#attempt = this.#begin();
    running.postcopy?.onStart?.((reason) => this.#break(reason));
  }

  /** Requests so far. */
  get requested(): number {
    return this.#requests.count;
  }

  /** Bytes of requested pages that went through the preempt channel. */
  get urgentBytes(): number {
    return this.#preempt?.ramBytes ?? 0;
  }

  /** Takes a request. Returns false for pages that do not exist. */
  takeRequest(message: ReturnMessage): boolean {
    if (!this.#requests.take(message)) return false;
    this.#loop?.wake();
    return true;
  }

  /** How many pages of each block were sent, by block index. */
  get sent(): PostcopyPasses['sent'] {
    return this.#pages.sent;
  }

  /** The background need not wait any more. */
  release(): void {
    this.#loop?.release();
  }

  /** Opens the preempt channel, if it must come before RAM. */
  async prepare(): Promise<void> {
    if (this.#isPreemptFirst) await this.#openPreempt();
  }

  /**
   * Waits for the first answer. Where the release is not known, it opens the preempt channel then, or when the destination does
   * not answer without it.
   */
  async prepareServed(): Promise<void> {
    const { confirmation } = this.#options;
    const { signal } = this.#attempt;
    const answered = confirmation.pong(1, signal);
    if (!this.#hasPreempt || this.#preempt !== undefined) return answered;
    await settledWithin(answered, answerMs);
    signal.throwIfAborted();
    this.#isPreemptFirst = !confirmation.hasHeard(1);
    await this.#openPreempt();
  }

  /** Hands the guest over. It is stopped, and its dirty bitmaps are synced. */
  async begin(): Promise<void> {
    const { confirmation, served } = this.#options;
    const { signal } = this.#attempt;
    if (!this.#isPreemptFirst && served === undefined) {
      // Before it has answered, a destination would take the channel for its main line.
      if (this.#hasPreempt) await confirmation.pong(1, signal);
      await this.#openPreempt();
    }
    confirmation.lastPing = 4;
    await this.#pages.begin(async () => {
      await this.#options.served?.beforePackage();
      signal.throwIfAborted();
      this.hasBegun = true;
      confirmation.place = 'split';
    });
  }

  /** Goes on with a guest that waits for its pages, and whose first source is gone. */
  async adopt(): Promise<void> {
    const { confirmation, writer, guest } = this.#options;
    this.hasBegun = true;
    confirmation.place = 'split';
    confirmation.lastPing = 4;
    writer.adopt(guest.ram.blocks);
    await this.#resume();
  }

  /** Sends all pages that are left, and the end of the stream. */
  async sendRest(): Promise<void> {
    const { passes, writer, running, confirmation, clock, lines, served } = this.#options;
    const { signal } = this.#attempt;
    const preempt = this.#preempt;
    const sender = preempt && { scan: preempt.scan, pages: preempt.pages.bind(preempt) };
    const order = served?.order(this.#pages) ?? new InTurn(this.#pages, passes.sentBlocks);
    this.#loop = new Postcopy(this.#pages, {
      ...{ order, requests: this.#requests, clock, signal, main: writer, preempt: sender },
      ...{ isHeld: served?.isHeld, onServed: served?.onServed },
      servesOn: served !== undefined && !this.#isPreemptFirst,
      rate: () => running.parameters['max-postcopy-bandwidth'] ?? 0,
      made: () => writer.length + lines.multifdBytes + this.urgentBytes,
      fail: (error) => {
        // A destination that has everything closes the channel.
        if (!confirmation.hasSentAll) this.#break(error);
      },
    });
    await this.#loop.run();
    if (this.#isPreemptFirst) await preempt?.finish();
    confirmation.hasSentAll = true;
    await this.#pages.finish();
  }

  /**
   * Goes on over other lines until the destination has the guest. `error` broke the first ones, and `sending` is what was
   * sent over them.
   * @throws `error`, if postcopy had not begun or nobody gives other lines; the reason of the signal
   */
  async recover(error: unknown, sending: Promise<void>, wait: Wait): Promise<void> {
    const { confirmation, meter, running, signal, lines } = this.#options;
    const onBreak = running.postcopy?.onBreak;
    let cause = error;
    let old = sending;
    for (;;) {
      // Who broke the lines gave the reason.
      if (this.#attempt.signal.aborted) cause = this.#attempt.signal.reason;
      signal.throwIfAborted();
      if (confirmation.place !== 'split' || onBreak === undefined) throw cause;
      this.#break(cause);
      lines.destroy();
      await old.catch(() => {});
      meter.enter('postcopy-paused', cause instanceof Error ? cause.message : String(cause));
      const others = await onBreak(cause);
      signal.throwIfAborted();
      try {
        const lastWord = this.#reconnect(others);
        old = this.#resume().then(() => this.sendRest());
        await confirmation.after(old, lastWord, wait);
        return;
      } catch (again) {
        cause = again;
      }
    }
  }

  /** Goes on over other lines. Returns what waits for the last word on them. */
  #reconnect(others: SendLines): Promise<void> {
    const { confirmation, meter, lines } = this.#options;
    this.#attempt = this.#begin();
    this.#requests.clear();
    confirmation.hasSentAll = false;
    lines.replace(others);
    meter.enter('postcopy-recover');
    return confirmation.read(lines.main);
  }

  /** Agrees with the destination on the pages that it has. */
  async #resume(): Promise<void> {
    const { writer, lines, passes, confirmation, meter, served } = this.#options;
    const { signal } = this.#attempt;
    await writer.reconnect(lines.mainSink());
    await this.#openPreempt();
    await served?.ask();
    for (const block of passes.sentBlocks) {
      const answer = confirmation.hear(({ type, block: idstr }) => isBitmapOf(block.idstr, type, idstr), signal);
      await writer.command(CommandCode.recvBitmap, encodeRecvBitmap(block.idstr));
      await writer.flush();
      const { bits = new Uint8Array() } = await answer;
      this.#pages.takeReceived(block, bits);
    }
    const acknowledged = confirmation.hear(({ type }) => type === ReturnType.resumeAck, signal);
    await writer.command(CommandCode.postcopyResume);
    await writer.flush();
    await acknowledged;
    meter.enter('postcopy-active');
  }

  get #hasPreempt(): boolean {
    return this.#options.running.postcopy?.preempt === true;
  }

  async #openPreempt(): Promise<void> {
    if (!this.#hasPreempt) return;
    const sink = await this.#options.lines.openPreempt();
    this.#preempt ??= new PreemptWriter(this.#options.writer.kernel, sink);
    this.#preempt.connect(sink);
  }

  /** Breaks the present lines. */
  #break(reason: unknown): void {
    if (this.#attempt.signal.aborted) return;
    this.#attempt.abort(reason);
    this.#options.lines.destroy();
  }

  /** Begins an attempt, which ends with the migration. */
  #begin(): AbortController {
    const { signal } = this.#options;
    const attempt = new AbortController();
    const end = () => attempt.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    attempt.signal.addEventListener('abort', () => signal.removeEventListener('abort', end), { once: true });
    if (signal.aborted) end();
    return attempt;
  }
}

const isBitmapOf = (idstr: string, type: number, block: string | undefined) =>
  type === ReturnType.recvBitmap && block === idstr;
