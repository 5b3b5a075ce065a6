/**
 * A VM as its monitor sees it: a guest that runs or stands still, and its migrations.
 *
 *     prelaunch ─cont─→ running ←──────── cont ─────────┐
 *                        │  ↑ │                         │
 *                      stop cont │ migration: STOP      │
 *                        ↓  │    ↓                      │
 *                      paused   finish-migrate ──→ postmigrate
 *                                │ failed or cancelled: back to what it was before
 *
 *     inmigrate ── arrived ──→ running, or what it was at the source; paused with --paused
 *
 * The texts of errors are QEMU's, as real QEMUs give them.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { MigrationSettings } from '../schema/migration-settings.ts';
import type { Configuration } from '../vm/flow.ts';
import type { Guest } from '../vm/guest.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import { BlockNodes } from './block-node.ts';
import type { CheckpointCache } from './colo-pages.ts';
import { type RunState, runStateOf, withRunState } from './global-state.ts';
import { MachineColo } from './machine-colo.ts';
import { isUnderWay, type OutgoingHost } from './outgoing-migration.ts';
import type { MigrationStatus } from './progress.ts';
import { type AnnouncedCard, type AnnounceParameters, SelfAnnouncer } from './self-announce.ts';
import { type LimitedVcpus, VcpuDirtyLimit } from './vcpu-dirty-limit.ts';

/** A guest that can be controlled. */
export interface MachineGuest extends Guest {
  readonly isRunning: boolean;
  /** Sections of iterables other than RAM, which came with it and are sent on. */
  readonly iterables?: readonly RawSection[];
  /** Does what the guest would have done by now, for somebody who reads its RAM. */
  look?(): Promise<void>;
  /** When the promise resolves, RAM stands still. */
  stop(): Promise<void>;
  cont(): void;
  /** Slows the guest down by a percentage. 0: full speed. */
  throttle(percentage: number): Promise<void>;
  /** Its RAM as it is now, for a background snapshot. It is stopped. */
  freeze(): RamReader;
  /** Begins to take checkpoints (COLO). It has just arrived. Default: it cannot. */
  beginCheckpoints?(): Promise<CheckpointCache>;
  /** Discards pages that another side has now (release-ram). Default: they are kept. */
  discard?(block: RamBlock, first: number, end: number): Promise<void>;
  /** Releases its RAM. */
  close(): Promise<void>;
}

/** What a machine is made of. */
export interface MachineOptions {
  settings: MigrationSettings;
  /** Undefined: it waits for an incoming migration. */
  guest?: MachineGuest | undefined;
  /** Where it begins: `prelaunch` if it was not started, `paused` if it was loaded. Ignored without a guest. */
  state?: 'running' | 'paused' | 'prelaunch';
  /** 32 hex digits. */
  uuid?: string | undefined;
  /** Its disks. Default: none. */
  nodes?: BlockNodes | undefined;
  /** Whether a guest that arrives may run. Default true. */
  mayStart?: boolean;
  /** Makes the dirty rings of its vCPUs, given what returns the present guest. Default: they have none. */
  rings?: ((guest: () => MachineGuest | undefined) => LimitedVcpus) | undefined;
  /** Its network cards, which are announced when a guest has arrived. Default: none. */
  cards?: readonly AnnouncedCard[] | undefined;
  /** Tells the clients of an event. */
  emit: (event: string, data?: object) => void;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
}

/** The capability of leaving shared memory out, which the stream states. */
const ignoreShared = 'x-ignore-shared';

/** Whether a guest that arrived stays as it was. */
const isKnownState = (state: string | undefined): state is RunState =>
  state === 'paused' || state === 'prelaunch' || state === 'postmigrate';

export class Machine {
  readonly settings: MigrationSettings;
  readonly emit: MachineOptions['emit'];
  readonly clock: Clock;
  readonly nodes: BlockNodes;
  /** The limits of its vCPUs. */
  readonly dirtyLimit: VcpuDirtyLimit;
  /** What tells the network where it is. */
  readonly announcer: SelfAnnouncer;
  /** Its role in COLO. */
  readonly colo: MachineColo;
  /** Sections of iterables other than RAM, which are sent on with the guest. */
  iterables: readonly RawSection[] = [];
  readonly #uuid: string | undefined;
  #guest: MachineGuest | undefined;
  #state: RunState;
  #mayStart: boolean;
  /** What it did before it was stopped for a switchover. */
  #before: RunState | undefined;
  /** Since when it has run without its RAM, in ms. Undefined: it has its RAM, or stands still. */
  #lacksRamSince: number | undefined;
  #withoutRamMs = 0;

  constructor(options: MachineOptions) {
    const { settings, guest, state = 'running', mayStart = true, uuid, emit, clock, nodes } = options;
    this.settings = settings;
    this.emit = emit;
    this.colo = new MachineColo(emit);
    this.clock = clock ?? systemClock;
    this.nodes = nodes ?? new BlockNodes([]);
    this.dirtyLimit = new VcpuDirtyLimit(
      options.rings?.(() => this.#guest),
      this.clock,
    );
    this.announcer = new SelfAnnouncer(options.cards ?? [], this.clock);
    this.iterables = guest?.iterables ?? [];
    this.#uuid = uuid;
    this.#guest = guest;
    this.#state = guest === undefined ? 'inmigrate' : state;
    this.#mayStart = mayStart;
  }

  get state(): RunState {
    return this.#state;
  }

  /** The one that it was started with, as 32 hex digits. */
  get ownUuid(): string | undefined {
    return this.#uuid;
  }

  /** 32 hex digits: its own, or the one that came with the guest. */
  get uuid(): string | undefined {
    return this.#uuid ?? this.#guest?.configuration?.uuid;
  }

  get isRunning(): boolean {
    return this.#state === 'running';
  }

  /** @throws Error while none has arrived */
  get guest(): MachineGuest {
    if (this.#guest === undefined) throw new Error('Guest is waiting for an incoming migration');
    return this.#guest;
  }

  /** Whether there is a guest, which can be migrated and looked at. */
  get hasGuest(): boolean {
    return this.#guest !== undefined;
  }

  /** How long it has run without its RAM, which arrives in postcopy, in ms. Its processors could do nothing. */
  get withoutRamMs(): number {
    const since = this.#lacksRamSince;
    return this.#withoutRamMs + (since === undefined ? 0 : this.clock.now() - since);
  }

  /** Ends that time, for now or for good. */
  #countWithoutRam(): void {
    this.#withoutRamMs = this.withoutRamMs;
    this.#lacksRamSince = undefined;
  }

  /** The command `stop`. */
  async stop(): Promise<void> {
    if (this.#state === 'inmigrate') this.#mayStart = false;
    else await this.halt('paused');
  }

  /** The command `cont`. @throws Error with QEMU's text */
  cont(): void {
    if (this.#state === 'finish-migrate') throw new Error('Migration is not finalized yet');
    if (this.#state === 'inmigrate') this.#mayStart = true;
    else this.run();
  }

  /** Stops the guest if it runs. */
  async halt(state: RunState): Promise<void> {
    if (!this.isRunning) return;
    this.#state = state;
    this.#countWithoutRam();
    await this.#guest?.stop();
    this.emit('STOP');
  }

  /** Lets the guest run, if it does not. */
  run(): void {
    if (this.isRunning) return;
    this.#before = undefined;
    this.#state = 'running';
    this.emit('RESUME');
    if (this.#guest === undefined) this.#lacksRamSince = this.clock.now();
    this.#guest?.cont();
  }

  /** Stops the guest for something that takes it back to what it did, see {@link release}. */
  async hold(state: RunState): Promise<void> {
    this.#before ??= this.#state;
    await this.halt(state);
    this.#state = state;
  }

  /**
   * Stops a guest that runs, as {@link hold} does. Snapshots and saved devices leave the state of one that stands, as in
   * QEMU: then it returns false, and there is nothing to release.
   */
  async holdRunning(state: RunState): Promise<boolean> {
    if (!this.isRunning) return false;
    await this.hold(state);
    return true;
  }

  /** Goes back to what it did before {@link hold}. */
  release(): void {
    const before = this.#before;
    if (before === undefined) return;
    this.#before = undefined;
    if (before === 'running') this.run();
    else this.#state = before;
  }

  /** The guest has gone. */
  leave(): void {
    this.#before = undefined;
    this.#state = 'postmigrate';
  }

  /** The state of all devices. `globalstate` has what the guest did before it was held. */
  async saveDevices() {
    const saved = await this.guest.saveDevices();
    return withRunState(saved, this.#before ?? this.#state);
  }

  /** Takes a guest that is arriving in postcopy, and runs before all of it is here. */
  begin(): void {
    this.#announce();
    if (this.#mayStart) this.run();
    else this.#state = 'paused';
  }

  /** Takes a guest that arrived. It runs if it ran at the source, and may. */
  async arrive(guest: MachineGuest): Promise<void> {
    const { devices } = await guest.saveDevices();
    const state = runStateOf(devices);
    this.#countWithoutRam();
    this.#guest = guest;
    // In postcopy it runs already.
    if (this.isRunning) guest.cont();
    else if (this.#state !== 'inmigrate') return;
    else if (isKnownState(state)) this.#state = state;
    else this.begin();
  }

  /** Tells the network that a guest is here now. */
  #announce(): void {
    const { parameters } = this.settings;
    const of = (name: keyof AnnounceParameters) => Number(parameters[name]);
    this.announcer.announce({
      parameters: {
        ...{ 'announce-initial': of('announce-initial'), 'announce-max': of('announce-max') },
        ...{ 'announce-rounds': of('announce-rounds'), 'announce-step': of('announce-step') },
      },
    });
  }

  /** Takes another guest instead of the present one, as loading a snapshot does. */
  async replace(guest: MachineGuest): Promise<void> {
    const old = this.#guest;
    this.#guest = guest;
    this.iterables = guest.iterables ?? [];
    await old?.close();
  }

  /** What an outgoing migration asks of this machine. */
  host(): OutgoingHost {
    const machine = this;
    const { guest } = this;
    return {
      guest: {
        ...{ configuration: machine.#configuration(), blocks: guest.blocks, ram: guest.ram },
        ...(guest.ignored === undefined ? {} : { ignored: guest.ignored }),
        ...(guest.framing === undefined ? {} : { framing: guest.framing }),
        syncDirty: (dirty) => guest.syncDirty(dirty),
        stop: () => guest.stop(),
        saveDevices: () => machine.saveDevices(),
      },
      stop: () => machine.hold('finish-migrate'),
      restart() {
        void guest.throttle(0);
        machine.release();
      },
      leave() {
        void guest.throttle(0);
        machine.leave();
      },
      onStatus(status) {
        if (!isUnderWay(status)) machine.dirtyLimit.endMigration(status === 'cancelled');
        machine.tellStatus(status);
      },
      onPass: (pass) => machine.tell('MIGRATION_PASS', { pass }),
      throttle: (percentage) => guest.throttle(percentage),
      freeze: () => guest.freeze(),
      limitVcpus: () => machine.#limitVcpus(),
      discard: (block, first, end) => guest.discard?.(block, first, end),
      stopForCheckpoint: () => machine.hold('colo'),
      runAfterCheckpoint: () => machine.run(),
      colo: machine.colo,
    };
  }

  /** The guest dirties too much for the migration that is under way (dirty-limit). */
  #limitVcpus(): void {
    const { settings } = this;
    this.dirtyLimit.limitForMigration(Number(settings.parameters['vcpu-dirty-limit']), () =>
      Number(settings.parameters['x-vcpu-dirty-limit-period']),
    );
  }

  /** What the stream states about this machine. */
  #configuration(): Configuration | undefined {
    const { configuration } = this.guest;
    if (configuration === undefined) return undefined;
    const { settings } = this;
    const { capabilities, uuid = settings.isOn('validate-uuid') ? this.#uuid : undefined, ...rest } = configuration;
    const others = capabilities.filter((name) => name !== ignoreShared);
    return {
      ...{ ...rest, capabilities: settings.isOn(ignoreShared) ? [...others, ignoreShared] : others },
      ...(uuid === undefined ? {} : { uuid }),
    };
  }

  /** The status of a migration changed. */
  tellStatus(status: MigrationStatus): void {
    this.tell('MIGRATION', { status });
  }

  /** An event of a migration, which clients are told of if they asked for it. */
  tell(event: string, data: object): void {
    if (this.settings.isOn('events')) this.emit(event, data);
  }
}
