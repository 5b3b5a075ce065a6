/**
 * One outgoing migration as its monitor sees it: QEMU's states, their events, and the answers of `query-migrate`.
 *
 *     setup ─→ active ─→ (guest stopped) ─→ [pre-switchover ─→] [device ─→] [postcopy-active ─→] completed
 *       │         │                              │                 │
 *       ├─────────┴──────────────────────────────┴─────────────────┴──→ failed        the guest runs on
 *       └──── migrate_cancel in any of these ──→ cancelling ──→ cancelled             the guest runs on
 *
 *     postcopy-active ─→ (the line breaks, migrate-pause) ─→ postcopy-paused ─→ (migrate with resume)
 *       ↑                                                                            │
 *       └──── postcopy-recover ←──── [postcopy-recover-setup ←─] ────────────────────┘
 *
 * A background snapshot goes from active to completed: the guest is stopped for a moment, and runs on here.
 * Releases before 10.0 enter `device` only after `pre-switchover`, and say `postcopy-active` before they stop the guest. What is sent is decided by `source.ts`.
 */
import { orAborted } from '../io/abort.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import type { ReleaseName } from '../schema/release-rules.ts';
import type { Guest } from '../vm/guest.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { SendBackground } from './background-snapshot.ts';
import type { ColoControl, ColoPrimaryHost } from './colo-primary.ts';
import { errorDesc, isFaultOfLine } from './error-desc.ts';
import { LiveError } from './live-error.ts';
import type { MachineColo } from './machine-colo.ts';
import { fileLine } from './outgoing.ts';
import type { MigrationProgress, MigrationStatus } from './progress.ts';
import type { SendLines, SendMappedRam, SendOptions, SendPostcopy, SendRunning } from './send-options.ts';
import { send } from './source.ts';

/** What a migration asks of the VM that it moves. */
export interface OutgoingHost {
  readonly guest: Guest;
  /** Stops the guest for the switchover. */
  stop(): Promise<void>;
  /** Lets the guest run on, if {@link stop} stopped it. */
  restart(): void;
  /** The guest has gone. Not called after a background snapshot, which leaves it here. */
  leave(): void;
  /** Freezes RAM, for a background snapshot. The guest is stopped. */
  freeze?(): RamReader;
  /** The status changed: event MIGRATION. */
  onStatus(status: MigrationStatus): void;
  /** A pass began: event MIGRATION_PASS. */
  onPass(pass: number): void;
  /** Slows the guest down (auto-converge). */
  throttle(percentage: number): Promise<void> | void;
  /** Limits the vCPUs, because they dirty too much (dirty-limit). It may be called again and again. */
  limitVcpus?(): Promise<void> | void;
  /** Discards pages that the destination has, in postcopy (release-ram). Default: they are kept. */
  discard?(block: RamBlock, first: number, end: number): Promise<void> | void;
  /** COLO: stops the guest for a checkpoint. */
  stopForCheckpoint?(): Promise<void>;
  /** COLO: lets it run, whatever it did before. */
  runAfterCheckpoint?(): void;
  /** COLO as its monitor sees it. */
  readonly colo?: MachineColo;
}

/** How a VM is moved. */
export interface OutgoingMigrationOptions
  extends Pick<
      SendRunning,
      'announcesColo' | 'parameters' | 'xbzrle' | 'forcesSyncs' | 'switchoverAck' | 'isRunning' | 'stopsFirst'
    >,
    Omit<SendOptions, 'running' | 'background' | 'onProgress' | 'signal' | 'clock' | 'mappedRam'> {
  /** Connects a line: the main one first. It is not called after the signal was aborted. */
  connect: (signal: AbortSignal) => Promise<Connection>;
  /** Opens the file that the VM goes into (capability mapped-ram). Nothing is connected then. */
  openFile?: ((signal: AbortSignal) => Promise<SendMappedRam>) | undefined;
  autoConverge: boolean;
  /** With this, the host has `limitVcpus`. Default false. */
  dirtyLimit?: boolean;
  pauseBeforeSwitchover: boolean;
  /** Whether `device` is entered without a pause, too: QEMU 10.0. */
  alwaysEntersDevice: boolean;
  /** Allows postcopy (capability postcopy-ram). It begins after {@link OutgoingMigration.startPostcopy}. */
  postcopy?: { preempt: boolean } | undefined;
  /** Discards pages in postcopy when they were sent, so that it cannot be resumed (capability release-ram). Default false. */
  releaseRam?: boolean;
  /** Goes on with checkpoints every `delay` ms (COLO). The host has all that is of COLO then. */
  colo?:
    | {
        /** Time between two checkpoints, in ms (x-checkpoint-delay). */
        delay: () => number;
      }
    | undefined;
  /** Whose order of states, and whose texts. Default: 10.0 with `alwaysEntersDevice`, and 9.0 without. */
  release?: ReleaseName | undefined;
  /** Sends the guest as it is when `active` begins, and lets it run on. The host has `freeze` then. Default false. */
  backgroundSnapshot?: boolean;
  clock?: Clock;
}

/** States in which a migration is under way. */
const underWay: readonly MigrationStatus[] = [
  ...(['setup', 'active', 'pre-switchover', 'device', 'cancelling'] as const),
  'colo',
  ...(['postcopy-active', 'postcopy-paused', 'postcopy-recover-setup', 'postcopy-recover'] as const),
];

/** Whether a migration in this state has begun, and has not ended. */
export const isUnderWay = (status: MigrationStatus): boolean => underWay.includes(status);

/** QEMU's text for a wrong state of migrate-continue. */
const unexpectedState = (status: MigrationStatus) => `Migration not in expected state: ${status}`;

/** The states in which migrate-pause is possible, and QEMU's text for all others. */
const pausable: readonly MigrationStatus[] = ['postcopy-active', 'postcopy-recover', 'postcopy-recover-setup'];
const notPausable = (states: string) => `migrate-pause is currently only supported during ${states} state`;

/** A migration from its beginning to its end. */
export class OutgoingMigration {
  #status: MigrationStatus = 'none';
  readonly #host: OutgoingHost;
  readonly #options: OutgoingMigrationOptions;
  readonly #cancel = new AbortController();
  /** The present state, once sending has begun. */
  #look: (() => MigrationProgress) | undefined;
  #last: MigrationProgress | undefined;
  #error: string | undefined;
  /** Ends the pause before the switchover. */
  #goOn: (() => void) | undefined;
  /** The latest `expected-downtime`. */
  #expected: number | undefined;
  /** A pass has begun. */
  #hasPass = false;
  #isPostcopyWanted = false;
  /** Begins checkpoints of COLO, and ends them. */
  #colo: ColoControl | undefined;
  #isFailingOver = false;
  /** Breaks the lines of postcopy. */
  #breakLines: ((reason: Error) => void) | undefined;
  /** Goes on over other lines, while it is paused. */
  #recover: ((lines: SendLines) => void) | undefined;

  constructor(host: OutgoingHost, options: OutgoingMigrationOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** QEMU's status. */
  get status(): MigrationStatus {
    return this.#status;
  }

  /** Whether it has begun, and has not ended. */
  get isUnderWay(): boolean {
    return isUnderWay(this.#status);
  }

  /** Moves the VM. Never rejects: the status, and `error-desc`, say how it ended. */
  async run(): Promise<void> {
    this.#enter('setup');
    try {
      await this.#send();
      if (this.#isFailingOver) return this.#goOnAlone();
      if (this.#options.backgroundSnapshot !== true) this.#host.leave();
      this.#enter('completed');
    } catch (error) {
      this.#end(error);
    }
  }

  async #send(): Promise<void> {
    const { connect, clock = systemClock, autoConverge, pauseBeforeSwitchover, postcopy } = this.#options;
    const {
      parameters,
      xbzrle,
      forcesSyncs = false,
      switchoverAck = false,
      isRunning,
      stopsFirst = false,
      colo,
      announcesColo,
      ...rest
    } = this.#options;
    const { backgroundSnapshot = false, dirtyLimit = false } = rest;
    const { signal } = this.#cancel;
    const open = async () => {
      signal.throwIfAborted();
      const connecting = connect(signal);
      // A line that comes too late is of no use.
      void connecting.then((line) => signal.aborted && line.destroy()).catch(() => {});
      return orAborted(connecting, signal);
    };
    const onStart = (look: () => MigrationProgress) => {
      this.#look = look;
    };
    const background: SendBackground = {
      freeze: () => (this.#host.freeze as () => RamReader)(),
      cont: () => this.#host.restart(),
      downtimeLimit: parameters['downtime-limit'],
      onStart,
    };
    const running: SendRunning = {
      ...{ parameters, xbzrle, forcesSyncs, switchoverAck, isRunning, stopsFirst },
      postcopy: postcopy && this.#postcopy(postcopy),
      ...{ announcesColo, colo: colo && this.#coloHost(colo) },
      throttle: autoConverge ? (percentage) => this.#host.throttle(percentage) : undefined,
      limitVcpus: dirtyLimit ? () => this.#host.limitVcpus?.() : undefined,
      beforeSwitchover: pauseBeforeSwitchover ? () => this.#pause() : undefined,
      onSync: (count) => {
        this.#hasPass = true;
        this.#host.onPass(count);
      },
      onStart,
    };
    const mappedRam = await this.#options.openFile?.(signal);
    const lines =
      mappedRam === undefined ? { main: await open(), openChannel: open } : { main: fileLine(mappedRam.file) };
    const { progress } = await send(this.#guest(), lines, {
      ...{ ...rest, ...(backgroundSnapshot ? { background } : { running }), signal, clock, mappedRam },
      ...(postcopy === undefined ? {} : { returnPath: true }),
      onProgress: ({ status, 'expected-downtime': expected }) => {
        this.#expected = expected ?? this.#expected;
        this.#follow(status);
      },
    });
    // QEMU counts no time of a migration that went on as COLO.
    this.#last = this.#isFailingOver ? { ...progress, downtime: 0, 'total-time': 0 } : progress;
  }

  #coloHost({ delay }: { delay: () => number }): ColoPrimaryHost {
    return {
      delay,
      stop: async () => this.#host.stopForCheckpoint?.(),
      run: () => this.#host.runAfterCheckpoint?.(),
      onError: () => this.#host.colo?.noteError('primary'),
      onStart: (control) => {
        this.#colo = control;
        this.#host.colo?.begin('primary');
      },
    };
  }

  /** Begins a checkpoint of COLO now, because x-checkpoint-delay was set. */
  checkpoint(): void {
    this.#colo?.checkpoint();
  }

  /** x-colo-lost-heartbeat: this side goes on alone. @throws Error with QEMU's text, if that was said before */
  async failOver(): Promise<void> {
    this.#host.colo?.beginFailover();
    this.#isFailingOver = true;
    await this.#host.stopForCheckpoint?.();
    this.#enter('completed');
    this.#host.colo?.endFailover('primary');
    this.#colo?.end();
  }

  #goOnAlone(): void {
    this.#host.colo?.exit('primary');
    this.#host.runAfterCheckpoint?.();
  }

  /** What postcopy asks of the one who commands it. */
  #postcopy({ preempt }: { preempt: boolean }): SendPostcopy {
    const { releaseRam = false } = this.#options;
    return {
      ...(releaseRam ? { discard: (block, first, end) => this.#host.discard?.(block, first, end) } : {}),
      ...{ preempt, announcesFirst: this.#release !== '10.0' },
      isWanted: () => this.#isPostcopyWanted,
      onStart: (breakLines) => {
        this.#breakLines = breakLines;
      },
      onBreak: (error) => {
        this.#error = errorDesc(error, { release: this.#release, returnPath: true, isInSetup: false });
        return new Promise((resolve) => {
          this.#recover = resolve;
        });
      },
    };
  }

  get #release(): ReleaseName {
    const { release, alwaysEntersDevice } = this.#options;
    return release ?? (alwaysEntersDevice ? '10.0' : '9.0');
  }

  /** The VM's guest, which the VM stops. */
  #guest(): Guest {
    const { guest } = this.#host;
    return {
      ...{ configuration: guest.configuration, blocks: guest.blocks, ram: guest.ram },
      ...(guest.ignored === undefined ? {} : { ignored: guest.ignored }),
      ...(guest.framing === undefined ? {} : { framing: guest.framing }),
      syncDirty: (dirty) => guest.syncDirty(dirty),
      stop: () => this.#host.stop(),
      saveDevices: () => guest.saveDevices(),
    };
  }

  /** Takes over the status of the sending, as far as it is one that this release has here. */
  #follow(status: MigrationStatus): void {
    const { alwaysEntersDevice, pauseBeforeSwitchover } = this.#options;
    const isEnd = status === 'completed' || status === 'failed' || status === 'cancelled';
    if (isEnd || status === this.#status || this.#status === 'cancelling' || this.#isFailingOver) return;
    if (status === 'device' && !alwaysEntersDevice && !pauseBeforeSwitchover) return;
    this.#enter(status);
  }

  #enter(status: MigrationStatus): void {
    this.#status = status;
    this.#host.onStatus(status);
  }

  #end(error: unknown): void {
    this.#last = this.#look?.();
    // Once the destination may run the guest, nobody else may. A background snapshot has let it run on already.
    const isHere = !(error instanceof LiveError) || error.guest === 'source' || error.guest === 'either';
    const isStopped = isHere && this.#options.backgroundSnapshot !== true;
    if (this.#cancel.signal.aborted) {
      if (isStopped) this.#host.restart();
      this.#enter('cancelled');
      return;
    }
    const { returnPath = false } = this.#options;
    const isInSetup = this.#status === 'setup' && this.#hasPass;
    this.#error = errorDesc(error, { release: this.#release, returnPath, isInSetup });
    // QEMU notices only then that its first bytes did not leave.
    if (isInSetup && isFaultOfLine(error)) this.#enter('active');
    this.#enter('failed');
    if (isStopped) this.#host.restart();
  }

  /** migrate-start-postcopy: it begins at the next turn of the loop. @throws Error with QEMU's text */
  startPostcopy(): void {
    if (this.#options.postcopy === undefined) {
      throw new Error('Enable postcopy with migrate_set_capability before the start of migration');
    }
    if (this.#status === 'none') throw new Error('Postcopy must be started after migration has been started');
    this.#isPostcopyWanted = true;
  }

  /** migrate-pause: breaks the lines of postcopy. @throws Error with QEMU's text */
  pause(): void {
    const is72 = this.#release === '7.2';
    if (!pausable.includes(this.#status) || (is72 && this.#status !== 'postcopy-active')) {
      throw new Error(notPausable(is72 ? 'postcopy-active' : 'postcopy-active or postcopy-recover'));
    }
    this.#breakLines?.(new PeerError('Postcopy migration is paused by the user'));
  }

  /**
   * migrate with `resume`: goes on over other lines. Resolves when they are there; a line that does not come leaves it
   * paused.
   * @throws Error with QEMU's text, if it is not paused or cannot be resumed
   */
  async resume(connect: OutgoingMigrationOptions['connect']): Promise<void> {
    const recover = this.#recover;
    if (this.#status !== 'postcopy-paused' || recover === undefined) {
      throw new Error('Cannot resume if there is no paused migration');
    }
    if (this.#options.releaseRam === true) {
      throw new Error('Postcopy recovery cannot work when release-ram capability is set');
    }
    const { signal } = this.#cancel;
    const hasSetup = this.#release === '10.0';
    this.#error = undefined;
    if (hasSetup) this.#enter('postcopy-recover-setup');
    try {
      const main = await connect(signal);
      this.#recover = undefined;
      recover({ main, openChannel: () => connect(signal) });
    } catch (error) {
      this.#error = errorDesc(error, { release: this.#release, returnPath: false, isInSetup: false });
      if (hasSetup && !signal.aborted) this.#enter('postcopy-paused');
    }
  }

  /** migrate_cancel. Does nothing if there is nothing to cancel. @throws Error with QEMU's text, in postcopy */
  cancel(): void {
    if (!this.isUnderWay) return;
    if (this.#status === 'colo') {
      this.#colo?.break();
      return;
    }
    if (this.#status.startsWith('postcopy') && this.#release === '10.0') {
      throw new Error('Postcopy migration in progress, cannot cancel.');
    }
    this.#abandon();
  }

  /** Ends the migration in any state, because the VM ends. Pages that only this side has are lost then. */
  close(): void {
    if (this.isUnderWay) this.#abandon();
  }

  #abandon(): void {
    this.#enter('cancelling');
    this.#cancel.abort(new Error('the migration was cancelled'));
    this.#goOn?.();
  }

  /** migrate-continue. @throws Error with QEMU's text */
  continue(state: MigrationStatus): void {
    if (state !== this.#status) throw new Error(unexpectedState(this.#status));
    this.#goOn?.();
  }

  async #pause(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#goOn = resolve;
      if (this.#cancel.signal.aborted) resolve();
    });
    this.#goOn = undefined;
  }

  /** The members of `query-migrate` that belong to the source. */
  query(): Omit<MigrationProgress, 'total-time'> & { 'total-time'?: number } {
    const status = this.#status;
    // 7.2 does not say why it is paused.
    const isSilent = this.#release === '7.2' && status === 'postcopy-paused';
    const error = this.#error === undefined || isSilent ? {} : { 'error-desc': this.#error };
    const isOver = status === 'cancelled' || status === 'failed';
    const progress = status === 'completed' ? this.#last : this.#look?.();
    if (status === 'setup' || status === 'colo' || isOver || progress === undefined) return { status, ...error };
    const { 'error-desc': _, downtime, ...members } = progress;
    // 7.2 shows what it had expected until postcopy is over.
    const expected = this.#release === '7.2' && status.startsWith('postcopy') ? this.#expected : undefined;
    const stood = downtime === undefined ? {} : { downtime };
    return { ...members, ...(expected === undefined ? stood : { 'expected-downtime': expected }), status, ...error };
  }
}
