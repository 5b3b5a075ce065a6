/**
 * The destination of a live migration that keeps the guest in a mapped-ram file.
 *
 *     source                                            destination
 *     header, configuration            ───────────────→
 *     OPEN_RETURN_PATH, PING 1         ───────────────→
 *                                      ←───────────────  PONG 1 [, SWITCHOVER_ACK]
 *     START, PART …, END of RAM        ───────────────→  pages to their places in the file
 *     devices, EOF [, description]     ───────────────→
 *                                                        file whole → durable → its name
 *                                      ←───────────────  SHUT 0: only now the source lets its guest go
 *     end of the line                  ───────────────→
 *
 *     postcopy, instead of END:  discards, PING 2, package {LISTEN, devices, PING 3, RUN}, PING 4, PART …, END, EOF
 *
 * Whatever fails before SHUT 0 is answered with SHUT 1, and the source's guest runs on. Without a return path the
 * source cannot be held back. In postcopy the source sends all pages by itself, so none need be asked for.
 */
import { orAborted } from '../io/abort.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import { endedWithin, settledWithin } from '../io/time-limit.ts';
import type { LiveFlow } from '../read/live-flow.ts';
import { findMissing, type MissingRam } from '../store/missing-ram.ts';
import type { RecoveryRecord } from '../store/recovery-record.ts';
import type { Settled } from '../store/settle.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { markIncomplete } from '../wire/vm-description.ts';
import { Answers } from './answers.ts';
import type { ColoLine } from './colo-line.ts';
import { GuestFile } from './guest-file.ts';
import type { Incoming } from './incoming.ts';
import { LineWatch } from './line-watch.ts';
import { type GuestPlace, isBreak, LiveError, nextIfPostcopy, nextOfReceived } from './live-error.ts';
import { ProgressMeter } from './progress.ts';
import type { IncomingSource, Received, ReceiveOptions, ReceiveTarget } from './receive-options.ts';
import { ReceivedCounts } from './received-counts.ts';
import { mainWithin, RecoveryQuestions, SilenceError } from './recovery-lines.ts';

/** How long the source may take to end the line after SHUT 0, in ms. */
const partingMs = 30_000;
/** How long the answer of a host whose process has ended may take, in ms. */
const departureMs = 200;

/** What marks a file that lacks pages. */
const brokenOff = 'the migration broke off in postcopy';

/** One migration that comes in. It closes all connections, and leaves the listener to the caller. */
export class Destination {
  #incoming: Incoming;
  #main: Connection;
  readonly #flow: LiveFlow;
  readonly #target: ReceiveTarget;
  readonly #options: ReceiveOptions;
  readonly #clock: Clock;
  #watch: LineWatch;
  readonly #guestFile: GuestFile;
  readonly #counts: ReceivedCounts;
  readonly #meter: ProgressMeter;
  #answers: Answers;
  /** Of a source that goes on over other lines. */
  #questions: RecoveryQuestions | undefined;
  /** What an earlier process has kept. */
  readonly #record: RecoveryRecord | undefined;
  /** The stream has come to its end. */
  #hasEnd = false;
  /** The source has begun postcopy. */
  #isSplit = false;
  /** The source goes on with checkpoints. */
  #isColo = false;
  /** Whether the source has announced postcopy, so that it may use a preempt channel. Undefined: it may still do so. */
  #hasAdvice: boolean | undefined;
  /** How it has announced postcopy. Empty: only of dirty bitmaps. */
  #advice: Uint8Array = new Uint8Array();
  /** Connections that are a preempt channel if postcopy begins, and strangers otherwise. */
  readonly #candidates: Connection[] = [];
  /** The source has ended the line. */
  #hasParted = false;
  /** The guest has its place here, for good. */
  #hasArrived = false;
  /** The source was told so. */
  #wasTold = false;
  #length = 0;

  constructor(
    incoming: Incoming,
    main: Connection,
    flow: LiveFlow,
    target: ReceiveTarget,
    options: ReceiveOptions,
    record: RecoveryRecord | undefined,
  ) {
    this.#incoming = incoming;
    this.#flow = flow;
    this.#target = target;
    this.#options = options;
    this.#record = record;
    this.#clock = options.clock ?? systemClock;
    this.#counts = new ReceivedCounts(this.#clock);
    this.#watch = this.#makeWatch();
    this.#main = this.#watch.add(main);
    this.#answers = new Answers(this.#main, { switchoverAck: options.switchoverAck });
    const partial = options.allowIncomplete === true;
    this.#guestFile = new GuestFile(target.file, flow, this.#main, { partial, record });
    this.#meter = new ProgressMeter({ clock: this.#clock, onProgress: options.onProgress }, () =>
      this.#counts.now(flow.reached, flow.channels),
    );
  }

  #makeWatch(): LineWatch {
    const { idleTimeoutMs, onWaiting, signal } = this.#options;
    const awaited = () => (this.#answers.isShut ? 'the source to end the line' : 'the source to send more');
    const onFailure = (error: unknown) => this.#flow.fail(error);
    return new LineWatch({ clock: this.#clock, idleTimeoutMs, onWaiting, awaited, onFailure, signal });
  }

  async run(): Promise<Received> {
    this.#meter.enter('setup');
    try {
      this.#incoming.others(({ kind, connection }) => this.#join(kind, connection));
      const settled = await this.#read(this.#flow.read(this.#main));
      this.#watch.pause();
      const missing = await this.#judge(settled);
      await this.#finish(settled, missing);
      this.#length = this.#target.file.size;
      const ended = this.#isColo ? Promise.resolve() : this.#waitForEnd();
      await this.#target.commit(() => this.#watch.throwIfFailed());
      this.#hasArrived = true;
      this.#watch.resume();
      if (this.#isColo) await this.#options.onColo?.(this.#coloLine);
      else await this.#tell(ended);
      this.#meter.enter('completed');
      return this.#result(settled, missing);
    } catch (thrown) {
      throw await this.#fail(this.#watch.causeOf(thrown));
    } finally {
      this.#watch.stop();
      this.#flow.close();
      for (const connection of this.#candidates) connection.destroy();
      await this.#incoming.close();
    }
  }

  #join(kind: string, connection: Connection): void {
    try {
      if (kind === 'channel') this.#flow.addChannel(this.#watch.add(connection));
      else if (kind === 'preempt' && this.#hasAdvice !== false) this.#takePreempt(connection);
      else this.#incoming.refuse(connection, 'Not a migration stream');
    } catch (error) {
      this.#watch.fail(error);
    }
  }

  /** The source has no postcopy, so there is no preempt channel. */
  #refuseCandidates(): void {
    this.#hasAdvice = false;
    for (const each of this.#candidates.splice(0)) this.#incoming.refuse(each, 'Not a migration stream');
  }

  /** Takes a preempt channel. Its source may be ahead of the main stream, so postcopy need not have begun here. */
  #takePreempt(connection: Connection): void {
    if (this.#isSplit && this.#candidates.length === 0) this.#flow.addPreempt(this.#watch.add(connection));
    this.#candidates.push(connection);
  }

  #beginPostcopy(): void {
    if (this.#isSplit) return;
    this.#isSplit = true;
    const [first] = this.#candidates;
    if (first !== undefined) this.#flow.addPreempt(this.#watch.add(first));
  }

  /** Reads the stream to its end, over other lines if those break in postcopy. */
  async #read(begin: AsyncIterable<FlowItem>): Promise<Settled> {
    for (let items = begin; ; ) {
      try {
        await this.#take(items);
        return this.#guestFile.settle();
      } catch (thrown) {
        items = await this.#reconnect(thrown);
      }
    }
  }

  /** Tells the source that all is well, over other lines if those break in postcopy: then it waits for nothing else. */
  async #tell(begin: Promise<void>): Promise<void> {
    for (let ended = begin; ; ended = this.#waitForEnd()) {
      try {
        await this.#part(ended);
        this.#wasTold = this.#answers.isOpen;
        return;
      } catch (thrown) {
        const { recovery } = this.#options;
        if (!this.#isSplit || recovery === undefined) throw thrown;
        // The guest is here, and the source cannot run it any more.
        if (recovery.tellsLate !== true) return;
        const items = await this.#reconnect(thrown).catch(() => undefined);
        if (items === undefined) return;
        await this.#read(items);
      }
    }
  }

  async #take(items: AsyncIterable<FlowItem>): Promise<void> {
    for await (const item of items) {
      const noted = this.#note(item);
      if (noted !== undefined) await noted;
      const taken = this.#guestFile.take(item);
      if (taken !== undefined) await taken;
    }
  }

  /** Waits for other lines after a break in postcopy. @throws what broke the lines, if it cannot go on */
  async #reconnect(thrown: unknown): Promise<AsyncGenerator<FlowItem, void>> {
    const { recovery, signal, idleTimeoutMs: ms } = this.#options;
    let error = this.#watch.causeOf(thrown);
    const isBroken = error instanceof MigrationError || error instanceof PeerError;
    if (recovery === undefined || !this.#flow.isRecoverable || !isBroken) throw thrown;
    for (;;) {
      this.#watch.fail(error);
      this.#watch.stop();
      for (const each of this.#candidates.splice(0)) each.destroy();
      await this.#incoming.close();
      this.#meter.enter('postcopy-paused', error instanceof Error ? error.message : String(error));
      if (this.#target.keep !== undefined) await this.#keep(this.#target.keep);
      try {
        this.#incoming = await orAborted(recovery.onBreak(error), signal);
      } catch {
        signal?.throwIfAborted();
        throw error;
      }
      this.#watch = this.#makeWatch();
      try {
        return await this.#goOn(await mainWithin(this.#incoming, { ms, signal, clock: this.#clock }));
      } catch (again) {
        if (signal?.aborted === true || again instanceof SilenceError) throw again;
        error = again;
      }
    }
  }

  async #goOn(main: Connection): Promise<AsyncGenerator<FlowItem, void>> {
    await this.#flow.leaveLines();
    this.#main = this.#watch.add(main);
    this.#hasParted = false;
    this.#answers = new Answers(this.#main, { isRecovery: true });
    this.#questions = new RecoveryQuestions(this.#guestFile.store, this.#answers);
    const items = this.#flow.recover(this.#main);
    this.#incoming.others(({ kind, connection }) => this.#join(kind, connection));
    this.#meter.enter('postcopy-recover');
    this.#offerBreak();
    return items;
  }

  get #coloLine(): ColoLine {
    const flow = this.#flow;
    return {
      ...{ line: this.#main, kernel: flow.kernel },
      read: (target) => flow.readOn(target),
      pages: () => flow.checkpoint(),
    };
  }

  #offerBreak(): void {
    const watch = this.#watch;
    this.#options.recovery?.onLines?.((error) => watch.fail(error));
  }

  #note(item: FlowItem): Promise<void> | undefined {
    this.#counts.take(item, this.#flow.marksEndPasses);
    switch (item.kind) {
      case 'section':
        if (this.#hasAdvice === undefined) this.#refuseCandidates();
        break;
      case 'blocks-end':
        this.#options.onReturnPath?.(this.#answers.isOpen);
        this.#options.onSource?.(this.#source);
        this.#meter.enter('active');
        return this.#hasAdvice && this.#record === undefined ? this.#guestFile.reserve() : undefined;
      case 'pages':
        this.#answers.takePages();
        this.#meter.tick();
        break;
      case 'discard':
        this.#beginPostcopy();
        break;
      case 'eof':
        this.#hasEnd = true;
        break;
      case 'section-end':
        return this.#answers.takeSection(item.section);
      case 'command':
        return this.#takeCommand(item);
      default:
    }
    return undefined;
  }

  get #source(): IncomingSource {
    return {
      configuration: this.#flow.configuration,
      blocks: this.#guestFile.store.blocks,
      hasAdvice: this.#advice.length > 0,
      channels: this.#flow.channels.list.length,
    };
  }

  async #takeCommand({ command }: FlowItem & { kind: 'command' }): Promise<void> {
    if (command.name === 'POSTCOPY_ADVISE') {
      this.#hasAdvice = true;
      this.#advice = command.payload.slice();
    }
    if (command.name === 'ENABLE_COLO' && this.#options.onColo !== undefined) {
      this.#options.onEnableColo?.();
      this.#isColo = true;
    }
    if (command.name === 'PACKAGED' || command.name === 'POSTCOPY_LISTEN') this.#beginPostcopy();
    if (command.name === 'POSTCOPY_RUN') {
      this.#meter.enter('postcopy-active');
      this.#offerBreak();
    }
    if (command.name === 'RECV_BITMAP') return this.#questions?.sayReceived(command);
    if (command.name === 'POSTCOPY_RESUME') {
      await this.#questions?.sayResumed(command, this.#main);
      this.#meter.enter('postcopy-active');
    }
    await this.#answers.takeCommand(command, this.#flow.configuration);
  }

  /** What the source left out. @throws MigrationError for evidence that memory is missing, unless it is accepted */
  async #judge(settled: Settled): Promise<MissingRam | undefined> {
    const [gap] = settled.gaps.filter(({ code }) => code !== 'block-ignored');
    // Only what the source leaves out on purpose can be accepted.
    if (gap !== undefined) throw MigrationError.from(gap);
    return findMissing(this.#guestFile.store, settled.gaps, settled.ignored);
  }

  async #finish(settled: Settled, missing: MissingRam | undefined): Promise<void> {
    this.#meter.enter('device');
    const [first] = missing?.evidence ?? [];
    const description =
      missing === undefined
        ? settled.description
        : markIncomplete(settled.description, first?.message ?? 'memory is missing');
    await this.#guestFile.complete(settled, description);
  }

  /** Tells the source that all is well, and waits until it ends the line. */
  async #part(ended: Promise<void>): Promise<void> {
    if (!this.#answers.isOpen) return;
    // A source that waits for the word does not end the line. One that has ended it may be gone, or only have said all.
    // An end that has come already must be seen before the word is said: afterwards it would look like a good one.
    await endedWithin(ended, 1);
    if (this.#hasParted) await this.#answers.shutSlowly(0, () => this.#clock.sleep(departureMs));
    else await this.#answers.shut(0);
    this.#options.onTold?.();
    await settledWithin(ended, partingMs);
    if (!this.#hasParted) throw new PeerError(`the source did not end the line within ${partingMs / 1000} s`);
  }

  /** Resolves when the source has ended the line. Without a return path it need not do that. */
  #waitForEnd(): Promise<void> {
    if (!this.#answers.isOpen) return Promise.resolve();
    const ended = this.#flow.passEnd().then(() => {
      this.#hasParted = true;
    });
    // A failure is reported where the source is told.
    ended.catch(() => {});
    return ended;
  }

  #result(settled: Settled, missing: MissingRam | undefined): Received {
    const { channels } = this.#flow;
    return {
      configuration: settled.configuration,
      blocks: this.#guestFile.store.blocks.map((block) => ({
        ...{ idstr: block.idstr, length: block.usedLength },
        ...this.#guestFile.store.countPages(block),
      })),
      length: this.#length,
      missing,
      confirmed: this.#wasTold,
      found: {
        channels: channels.list.length,
        compression: channels.compression,
        postcopy: this.#isSplit,
        xbzrlePages: this.#counts.xbzrlePages,
      },
      progress: this.#meter.now(),
    };
  }

  /** The error to report. Tells the source, if it still listens, and keeps what may be the only copy of pages. */
  async #fail(error: unknown): Promise<LiveError> {
    const guest = this.#guest(error);
    if (guest === 'source' && this.#answers.isOpen) await endedWithin(this.#answers.shut(1), 1000);
    this.#watch.fail(error);
    this.#meter.enter(this.#options.signal?.aborted === true ? 'cancelled' : 'failed', String(error));
    const kept = guest === 'split' ? await this.#keepSplit() : '';
    const isOpen = this.#answers.isOpen && !this.#answers.isShut;
    return new LiveError(
      guest,
      isOpen && guest === 'either' ? nextIfPostcopy : nextOfReceived(guest, this.#hasEnd, kept),
      error,
    );
  }

  /** Keeps what has come, so that the migration can go on. Returns the name of the file. */
  async #keep(keep: () => Promise<string>): Promise<string> {
    if (this.#hasArrived) return '';
    if (this.#flow.isRecoverable) await this.#guestFile.keep(brokenOff, this.#advice);
    else await this.#guestFile.keepCut(brokenOff);
    return keep();
  }

  /** Keeps the file, and says what became of it. The first error is the one to report. */
  async #keepSplit(): Promise<string> {
    const { keep } = this.#target;
    if (keep === undefined) return '';
    try {
      return `; what came is in ${await this.#keep(keep)}`;
    } catch (error) {
      return `; what came could not be kept: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  #guest(error: unknown): GuestPlace {
    if (this.#answers.isShut) return 'either';
    if (this.#isSplit || this.#record !== undefined) return 'split';
    if (!this.#answers.isOpen) return 'either';
    // A source that can do postcopy may have begun it, and what says so was on the line that broke.
    return this.#hasAdvice && isBreak(error) ? 'either' : 'source';
  }
}
