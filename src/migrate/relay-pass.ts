/**
 * One migration that passes through a relay, byte for byte.
 *
 *     source                         relay                          target
 *       │── main, QEVM ───────────────→│── connect, main ─────────────→│
 *       │── channels ─────────────────→│── connect, one for each ─────→│   in the order of the source
 *       │── preempt, silent ──────────→│── connect ───────────────────→│   if POSTCOPY_ADVISE has passed
 *       │═════ bytes ═════════════════→│═════ bytes ══════════════════→│
 *       │←═════ return path ═══════════│←═════ return path ════════════│
 *       │←───── SHUT 0 ────────────────│←───── SHUT 0 ─────────────────│   the target has the guest
 *       │── end ──────────────────────→│── end ───────────────────────→│
 *
 * A return path tells the source whether the target has the guest, so the relay adds nothing to it. Without one, a source
 * takes for granted what it has written. The relay then holds little, and waits until the target has taken everything
 * and has closed.
 */
import type { Clock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import type { Tap } from '../io/tap.ts';
import type { Bandwidth } from './bandwidth.ts';
import type { LineWatch } from './line-watch.ts';
import { type GuestPlace, isBreak, LiveError, nextIfPostcopy } from './live-error.ts';
import type { RelayFlow } from './relay-flow.ts';
import type { Arrival, Intake } from './relay-intake.ts';
import { Line, type LineFailure, type LineOptions } from './relay-line.ts';
import type { RelayCounts } from './relay-progress.ts';
import { ReturnWatch, type StreamWatch } from './relay-watch.ts';
import type { Tee } from './tee.ts';

/** How long the channels may take to end once the main connection has ended well, in ms. */
const lingerMs = 2_000;

/** What a connection is for. A number is that of a multifd channel. */
export type Role = 'main' | 'preempt' | number;

export interface PassOptions {
  clock: Clock;
  intake: Intake;
  /** Connects to the target. @throws PeerError if it cannot be reached, or refuses */
  connect: () => Promise<Connection>;
  /** Whether the end of the target's output means anything. A program may close its output from the start. */
  targetAnswers: boolean;
  /** Breaks all lines when one of them fails. */
  watch: LineWatch;
  stream: StreamWatch;
  bandwidth: Bandwidth | undefined;
  /** Called with each connection of the source. Returns the one to use. */
  wrap: (source: Connection, role: Role) => Connection;
  /** Keeps the guest in a file, too. */
  tee: Tee | undefined;
  /** Encodes RAM again. It then keeps the guest itself. */
  flow: RelayFlow | undefined;
}

/** How a migration went. */
export interface PassResult {
  /** Whether the target has said that it has the guest. Without a return path it says nothing. */
  isConfirmed: boolean;
  hasPostcopy: boolean;
}

export class RelayPass {
  readonly #options: PassOptions;
  readonly #lines: Line[] = [];
  #main: Line | undefined;
  #answers: ReturnWatch | undefined;
  /** The first failure counts. */
  #failure: LiveError | undefined;
  #onFailure: () => void = () => {};
  readonly #failed: Promise<void>;
  /** Aborted when the migration has ended. */
  readonly #over = new AbortController();
  /** Connections to the target are made one after another. */
  #connecting: Promise<unknown> = Promise.resolve();

  constructor(options: PassOptions) {
    this.#options = options;
    this.#failed = new Promise((resolve) => {
      this.#onFailure = resolve;
    });
  }

  /** Passes on a migration to its end. @throws LiveError */
  async run(main: Arrival): Promise<PassResult> {
    const { stream, intake, tee } = this.#options;
    if (main.opening === 'recovery') {
      stream.beginRecovery();
      tee?.refuse('the recovery of a migration has only a part of the guest');
    }
    await this.#connect(main, 'main');
    intake.forEach((arrival) => void this.#admit(arrival));
    await Promise.race([this.#main?.ended, this.#failed]);
    this.#over.abort();
    stream.end();
    if (this.#failure === undefined) this.#judgeEnd();
    if (this.#failure !== undefined) throw this.#failure;
    await this.#closeAll();
    return { isConfirmed: this.#isShut, hasPostcopy: this.#hasPostcopy };
  }

  /** Connections to the target. */
  get connections(): number {
    return this.#lines.length + (this.#options.flow?.channels.length ?? 0);
  }

  /** Bytes that the source has sent, over all connections. */
  get sourceBytes(): number {
    return this.#lines.reduce((sum, { forward }) => sum + forward.read, 0);
  }

  /** Bytes that the target has taken, over all connections. */
  get forwardBytes(): number {
    return this.#lines.reduce((sum, { forward }) => sum + forward.written, 0);
  }

  /** Bytes that the source has taken. */
  get returnBytes(): number {
    return this.#lines.reduce((sum, { back }) => sum + (back?.written ?? 0), 0);
  }

  /** What a meter counts. */
  get counts(): RelayCounts {
    return { received: this.sourceBytes, transferred: this.forwardBytes, hasPostcopy: this.#hasPostcopy };
  }

  /**
   * Fails if the target does not answer the source's first PING in time. It has all its connections then, unless it waits
   * for more.
   */
  async expectAnswer(timeoutMs: number): Promise<void> {
    if (this.#options.stream.hasReturnPath !== true) return;
    await this.#options.clock.sleep(timeoutMs, this.#over.signal).catch(() => {});
    if (this.#over.signal.aborted || (this.#main?.back?.read ?? 0) > 0) return;
    const message = `the target did not answer within ${timeoutMs / 1000} s: it may wait for more multifd channels`;
    this.fail(new PeerError(message, { code: 'ETIMEDOUT' }));
  }

  /** Ends the migration from here, with the first cause that is known. */
  fail(error: unknown): void {
    const { watch } = this.#options;
    const cause = watch.causeOf(error);
    const [guest, next] = this.#whereGuest(cause);
    this.#failure ??= new LiveError(guest, next, cause);
    watch.fail(error);
    this.#onFailure();
  }

  /** Decides what to do with a connection that came after the main one, or before it was known. */
  async #admit(arrival: Arrival): Promise<void> {
    const { intake, stream } = this.#options;
    const opening = await Promise.race([intake.identify(arrival), stream.preempts]);
    if (arrival.isTaken) return;
    if (opening === 'channel') await this.#connect(arrival, arrival.channel);
    else if (opening === 'stream') intake.refuse(arrival, 'another migration is running');
    // Its first bytes may be read before those of the main connection.
    else if (opening !== 'other' && (await stream.advice)) await this.#connect(arrival, 'preempt');
    else intake.refuse(arrival, 'Not a migration stream');
  }

  /** Connects the target for a connection of the source. A failure ends everything. */
  async #connect(arrival: Arrival, role: Role): Promise<void> {
    arrival.isTaken = true;
    const { connect, watch, wrap } = this.#options;
    const { flow, tee } = this.#options;
    const source = watch.add(wrap(arrival.connection, role), 'source');
    if (flow !== undefined && typeof role === 'number') return this.#addChannel(flow, source);
    // Before the target is connected: the main stream may be decoded meanwhile.
    const copy = role === 'preempt' && flow !== undefined ? flow.addPreempt() : tee?.add(role);
    const connected = this.#connecting.then(async () => {
      if (this.#failure !== undefined) return;
      try {
        this.#open(source, watch.add(await connect(), 'target'), role, copy);
      } catch (error) {
        this.fail(error);
      }
    });
    this.#connecting = connected;
    await connected;
  }

  #addChannel(flow: RelayFlow, source: Connection): void {
    try {
      flow.addChannel(source);
    } catch (error) {
      this.fail(error);
    }
  }

  #open(source: Connection, target: Connection, role: Role, copy: Tap | undefined): void {
    const { bandwidth, stream, flow } = this.#options;
    const isMain = role === 'main';
    const limit = bandwidth && ((bytes: number) => bandwidth.take(bytes));
    const onFailure = (failure: LineFailure) => this.#isHarmless(isMain, failure);
    let options: LineOptions = { forward: { limit, copy }, onFailure };
    if (isMain) {
      options = {
        forward: {
          ...{ limit, copy, onlooker: (memory) => stream.watch(memory) },
          isEnd: () => this.isComplete,
          onMove: () => this.checkTarget(),
        },
        back: {
          onlooker: (memory) => {
            this.#answers = new ReturnWatch(memory);
            return this.#answers;
          },
          isEnd: () => this.#isShut,
        },
        // A source that closes while it has something to read, such as the end of TLS, resets the line.
        holdBackEnd: async () => {
          if (this.#isShut) await this.#options.clock.sleep(lingerMs, this.#over.signal).catch(() => {});
        },
        onFailure,
      };
    }
    if (isMain && flow !== undefined) {
      flow.begin(source, target);
      options = { ...options, way: flow };
    }
    const line = new Line(source, target, options);
    this.#lines.push(line);
    if (isMain) this.#main = line;
  }

  /** SHUT 0 has been passed on. It is the last message: the target has the guest, and the source knows. */
  get #isShut(): boolean {
    const { shut } = this.#answers ?? {};
    return shut?.status === 0 && (this.#main?.back?.written ?? 0) >= shut.end;
  }

  /** Without a return path: the source has sent everything, and needs no answer. */
  get isComplete(): boolean {
    return this.#options.stream.isWhole && !this.#hasReturnPath;
  }

  get #hasReturnPath(): boolean {
    return this.#options.stream.hasReturnPath === true || (this.#main?.back?.read ?? 0) > 0;
  }

  get #hasPostcopy(): boolean {
    return this.#options.stream.hasPostcopy || this.#answers?.hasPostcopy === true;
  }

  /** @throws PeerError if the target has ended, in good order even, while the source goes on sending */
  checkTarget(): void {
    const main = this.#main;
    if (main?.back?.hasEnded !== true || !this.#options.targetAnswers) return;
    const isLate = this.#answers?.shut !== undefined || this.#options.stream.isWhole;
    if (!isLate && main.forward.isBusy) {
      throw new PeerError('the target ended the migration early');
    }
  }

  /** Whether a failure does not matter. Otherwise it ends the migration. */
  #isHarmless(isMain: boolean, { side, work, error }: LineFailure): boolean {
    // It is over, unless the source could not be told.
    if (this.#isShut && !(isMain && side === 'source')) return true;
    // A target sends nothing on its channels. It may reset them at the end, even before SHUT.
    if (!isMain && side === 'target' && work === 'read') return true;
    if (!isMain && side === 'source' && this.isComplete) return true;
    this.fail(error);
    return false;
  }

  /** The main connection has ended in both directions. Was that the end of the migration? */
  #judgeEnd(): void {
    const { stream } = this.#options;
    const { shut } = this.#answers ?? {};
    if (this.#isShut) return;
    if (shut !== undefined) this.fail(new PeerError(`Sibling indicated error ${shut.status}`));
    else if (this.#hasReturnPath || this.#hasPostcopy) {
      this.fail(new PeerError('the migration ended before the target said that it has the guest'));
    } else if (!stream.isWhole && !stream.isLost) this.fail(new PeerError('the source ended the migration early'));
  }

  /** Lets the channels end, too. */
  async #closeAll(): Promise<void> {
    const isDone = new AbortController();
    const late = this.#options.clock.sleep(lingerMs, isDone.signal).catch(() => {});
    await Promise.race([Promise.all(this.#lines.map(({ ended }) => ended)), late]);
    isDone.abort();
    await Promise.all([...this.#lines.map((line) => line.close()), this.#options.flow?.closeChannels()]);
  }

  /** What has to come next. */
  get awaited(): string {
    if (this.#isShut) return 'the source to end the line';
    if (this.isComplete) {
      const hint = this.#options.flow === undefined ? '' : ': it may wait for more multifd channels';
      return `the target to take the rest and end the line${hint}`;
    }
    const isSent = this.#options.stream.isWhole && this.#hasReturnPath;
    return isSent ? 'the target to confirm that it has the guest' : 'the source to send more';
  }

  /** Where the guest is, and what is safe to do next. */
  #whereGuest(cause: unknown): [GuestPlace, string] {
    const guest = this.#guest;
    const main = this.#main;
    // A source that does not hear the last word may take its guest back, even in postcopy.
    if (guest === 'either' && this.#hasPostcopy) return [guest, nextIfUnheard];
    if (guest !== 'source' || main === undefined || main.forward.hasEnded || !isBreak(cause))
      return [guest, nextSteps[guest]];
    // A source that can do postcopy may have begun it, and what says so was on the line that broke.
    const mayBeSplit = this.#options.stream.mayPreempt === true && this.#answers?.shut === undefined;
    return mayBeSplit ? ['either', nextIfPostcopy] : [guest, nextSteps[guest]];
  }

  /** Where the guest is, as far as the bytes say that were passed on. */
  get #guest(): GuestPlace {
    const { stream } = this.#options;
    const main = this.#main;
    if (this.#answers?.shut?.status === 0) return 'either';
    if (this.#hasPostcopy) return 'split';
    // What never reached the target, or was refused by it, can only be at the source.
    if (main === undefined || this.#answers?.shut !== undefined) return 'source';
    // A target that has everything starts the guest, and its word may be on the line that broke.
    const isSent = main.forward.mayHavePassed(stream.wholeAt);
    if (this.#hasReturnPath) return isSent || stream.isLost ? 'either' : 'source';
    // A good end brings everything that the source has written, so the source has not completed.
    if (main.forward.hasEnded && !stream.isWhole && !stream.isLost) return 'source';
    return 'either';
  }
}

/** What is safe to do next if the target has said that it has the guest after postcopy, and its source may not know. */
const nextIfUnheard =
  'the target has all of the guest: do not resume it at the source, and if it runs there, too, `stop` it there at once';

const nextSteps: Record<GuestPlace, string> = {
  source: 'the guest is at the source; if it does not run on there, `cont` resumes it',
  target: 'the target has all of the guest; do not resume it at the source',
  split:
    'postcopy has begun, so keep both QEMUs: `migrate-recover` at the target, then `migrate` with `resume` at the source',
  either:
    'look at the target first: if it has the guest, do not let it run at the source; if not, and the source is still there, `cont` lets it run on there',
};
