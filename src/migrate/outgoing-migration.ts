/**
 * One outgoing migration as its monitor sees it: QEMU's states, their events, and the answers of `query-migrate`.
 *
 *     setup ─→ active ─→ (guest stopped) ─→ [pre-switchover ─→] [device ─→] completed
 *       │         │                              │                 │
 *       ├─────────┴──────────────────────────────┴─────────────────┴──→ failed        the guest runs on
 *       └──── migrate_cancel in any of these ──→ cancelling ──→ cancelled             the guest runs on
 *
 * Releases before 10.0 enter `device` only after `pre-switchover`. What is sent is decided by `source.ts`.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { Connection } from '../io/connection.ts';
import type { Guest } from '../vm/guest.ts';
import { LiveError } from './live-error.ts';
import type { MigrationProgress, MigrationStatus } from './progress.ts';
import type { SendOptions, SendRunning } from './send-options.ts';
import { send } from './source.ts';

/** What a migration asks of the VM that it moves. */
export interface OutgoingHost {
  readonly guest: Guest;
  /** Stops the guest for the switchover. */
  stop(): Promise<void>;
  /** Lets the guest run on, if {@link stop} stopped it. */
  restart(): void;
  /** The guest has gone. */
  leave(): void;
  /** The status changed: event MIGRATION. */
  onStatus(status: MigrationStatus): void;
  /** A pass began: event MIGRATION_PASS. */
  onPass(pass: number): void;
  /** Slows the guest down (auto-converge). */
  throttle(percentage: number): Promise<void> | void;
}

/** How a VM is moved. */
export interface OutgoingMigrationOptions
  extends Pick<SendRunning, 'parameters' | 'xbzrle' | 'forcesSyncs' | 'switchoverAck'>,
    Omit<SendOptions, 'running' | 'onProgress' | 'signal' | 'clock'> {
  /** Connects a line: the main one first. It is not called after the signal was aborted. */
  connect: (signal: AbortSignal) => Promise<Connection>;
  autoConverge: boolean;
  pauseBeforeSwitchover: boolean;
  /** Whether `device` is entered without a pause, too: QEMU 10.0. */
  alwaysEntersDevice: boolean;
  clock?: Clock;
}

/** States in which a migration is under way. */
const underWay: readonly MigrationStatus[] = ['setup', 'active', 'pre-switchover', 'device', 'cancelling'];

/** QEMU's text for a wrong state of migrate-continue. */
const unexpectedState = (status: MigrationStatus) => `Migration not in expected state: ${status}`;

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
    return underWay.includes(this.#status);
  }

  /** Moves the VM. Never rejects: the status, and `error-desc`, say how it ended. */
  async run(): Promise<void> {
    this.#enter('setup');
    try {
      await this.#send();
      this.#host.leave();
      this.#enter('completed');
    } catch (error) {
      this.#end(error);
    }
  }

  async #send(): Promise<void> {
    const { connect, clock = systemClock, autoConverge, pauseBeforeSwitchover } = this.#options;
    const { parameters, xbzrle, forcesSyncs = false, switchoverAck = false, ...rest } = this.#options;
    const { signal } = this.#cancel;
    const open = async () => {
      signal.throwIfAborted();
      return connect(signal);
    };
    const running: SendRunning = {
      ...{ parameters, xbzrle, forcesSyncs, switchoverAck },
      throttle: autoConverge ? (percentage) => this.#host.throttle(percentage) : undefined,
      beforeSwitchover: pauseBeforeSwitchover ? () => this.#pause() : undefined,
      onSync: (count) => this.#host.onPass(count),
      onStart: (look) => {
        this.#look = look;
      },
    };
    const { progress } = await send(
      this.#guest(),
      { main: await open(), openChannel: open },
      {
        ...{ ...rest, running, signal, clock },
        onProgress: ({ status }) => this.#follow(status),
      },
    );
    this.#last = progress;
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
    if (isEnd || status === this.#status || this.#status === 'cancelling') return;
    if (status === 'device' && !alwaysEntersDevice && !pauseBeforeSwitchover) return;
    this.#enter(status);
  }

  #enter(status: MigrationStatus): void {
    this.#status = status;
    this.#host.onStatus(status);
  }

  #end(error: unknown): void {
    this.#last = this.#look?.();
    if (this.#cancel.signal.aborted) {
      this.#host.restart();
      this.#enter('cancelled');
      return;
    }
    // QEMU has the reason alone, without what is safe to do.
    const cause = error instanceof LiveError && error.cause instanceof Error ? error.cause : error;
    this.#error = cause instanceof Error ? cause.message : String(cause);
    this.#enter('failed');
    this.#host.restart();
  }

  /** migrate_cancel. Does nothing if there is nothing to cancel. */
  cancel(): void {
    if (!this.isUnderWay) return;
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
    const error = this.#error === undefined ? {} : { 'error-desc': this.#error };
    const isOver = status === 'cancelled' || status === 'failed';
    const progress = status === 'completed' ? this.#last : this.#look?.();
    if (status === 'setup' || isOver || progress === undefined) return { status, ...error };
    return { ...progress, status, ...error };
  }
}
