/**
 * The outgoing migrations of a machine, one after another, as `migrate` and its companions start and steer them. What is
 * checked, and in which order, is QEMU's (docs/qmp.md).
 *
 *     migrate ── checks ──→ setup ──→ OutgoingMigration ──→ completed, failed, cancelled
 *        │  address does not parse: an error, and no migration (7.2: setup, failed)
 *        │  fd, file, exec cannot be opened: setup, failed, and an error
 *        └─ sockets: {} at once; what fails is an event
 */
import type { ByteSink, ByteStore } from '../io/byte-source.ts';
import type { Connection } from '../io/connection.ts';
import type { FileAddress } from '../io/migration-address.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { XbzrleCounters } from '../write/xbzrle-cache.ts';
import { type BitmapMapping, type BitmapsUnderWay, sendBitmaps } from './bitmap-migration.ts';
import type { Machine } from './machine.ts';
import {
  type GivenAddress,
  type MachineAddress,
  machineAddress,
  outgoingTexts,
  type TakeDescriptor,
  withDescriptor,
} from './machine-address.ts';
import { migrationOptions } from './migration-options.ts';
import type { AlterMigration } from './misbehaviour.ts';
import { sinkLine } from './outgoing.ts';
import { OutgoingMigration } from './outgoing-migration.ts';
import type { MigrationProgress, MigrationStatus } from './progress.ts';
import type { SendMappedRam } from './send-options.ts';

/** What a line is secured with: ids of objects, which are looked up when it is made. */
export interface LineTls {
  creds: string;
  /** The name that the server's certificate must have. Empty: the host of the address. */
  hostname: string;
}

/** How a machine reaches others. */
export interface MachineLines {
  /** @throws Error with QEMU's text */
  connect(address: MachineAddress, tls: LineTls | undefined, signal: AbortSignal): Promise<Connection>;
  /**
   * Makes a file that a guest goes into at fixed places (mapped-ram). The caller closes it. `directIo`: past the page cache,
   * where the file system allows it. @throws Error with QEMU's text
   */
  createFile(address: FileAddress, options: { directIo: boolean }): ByteStore | Promise<ByteStore>;
  codecs: PageCodecs;
}

/** The arguments of `migrate`. */
export interface MigrateArguments extends GivenAddress {
  resume?: boolean;
  blk?: boolean;
  inc?: boolean;
}

const inProgress = "There's a migration process in progress";

export class MachineMigrate {
  readonly #machine: Machine;
  readonly #lines: MachineLines;
  readonly #alter: AlterMigration;
  #outgoing: OutgoingMigration | undefined;
  /** 7.2 counts an address that it cannot use as a migration that failed. */
  #refused: { status: 'failed'; 'error-desc'?: string } | undefined;
  readonly #xbzrle = new XbzrleCounters();
  /** The lines of the present migration. */
  readonly #open = new Set<Connection>();
  /** The file of the present migration. */
  #file: ByteStore | undefined;

  /** @param alter changes what each migration is made of */
  constructor(machine: Machine, lines: MachineLines, alter: AlterMigration = (parts) => parts) {
    this.#machine = machine;
    this.#lines = lines;
    this.#alter = alter;
  }

  get isUnderWay(): boolean {
    return this.#outgoing?.isUnderWay ?? false;
  }

  get status(): MigrationStatus {
    return this.#refused?.status ?? this.#outgoing?.status ?? 'none';
  }

  /** What `query-migrate` has of the source; undefined before the first migration. */
  query(): (Omit<MigrationProgress, 'total-time'> & { 'total-time'?: number }) | undefined {
    if (this.#refused !== undefined) return this.#refused;
    const found = this.#outgoing?.query();
    const { settings, dirtyLimit } = this.#machine;
    return found?.ram === undefined || !settings.isOn('dirty-limit') ? found : { ...found, ...dirtyLimit.members };
  }

  /**
   * Starts a migration, or goes on with one. Resolves when the command is answered. `take` knows the names of `fd:NAME`.
   * @throws Error with QEMU's text
   */
  async migrate(given: MigrateArguments, take: TakeDescriptor = () => undefined): Promise<void> {
    const address = this.#accept(given);
    if (given.resume === true) return this.#resume(address);
    this.#refused = undefined;
    if (this.#lacksChannels(address)) return this.#refuseAfterConnecting(address);
    let isOpen: () => void = () => {};
    let isImpossible: (reason: unknown) => void = () => {};
    const opened = new Promise<void>((resolve, reject) => {
      [isOpen, isImpossible] = [resolve, reject];
    });
    opened.catch(() => {});
    const noted = <Made>(making: Promise<Made>) => {
      making.then(isOpen, isImpossible);
      return making;
    };
    const isFile = address.transport === 'file' && this.#machine.settings.isOn('mapped-ram');
    const bitmaps = this.#takeBitmaps();
    const connect = async (signal: AbortSignal) => {
      if ('error' in bitmaps) throw bitmaps.error;
      return this.#lines.connect(withDescriptor(address, take), this.#tls(), signal);
    };
    const more = 'error' in bitmaps ? {} : { iterables: [...this.#machine.iterables, ...bitmaps.sections] };
    const { host, options } = this.#alter(
      {
        host: this.#machine.host(),
        options: {
          ...migrationOptions(this.#machine, this.#lines.codecs, this.#xbzrle),
          ...more,
          clock: this.#machine.clock,
          connect,
        },
      },
      () => (this.query() as Partial<MigrationProgress> | undefined)?.ram,
    );
    const migration = new OutgoingMigration(host, {
      ...options,
      connect: (signal) => noted(this.#keep(options.connect(signal))),
      ...(isFile ? { openFile: (signal) => noted(this.#openFile(address, signal)) } : {}),
    });
    this.#outgoing = migration;
    const ended = migration.run().finally(() => {
      if ('release' in bitmaps) bitmaps.release();
      return this.#release();
    });
    if (isAsynchronous(address)) return;
    try {
      await Promise.race([opened, ended]);
    } catch (error) {
      await ended;
      throw error;
    }
  }

  /** The dirty bitmaps that are sent, which are busy until they are released; or why they cannot be. */
  #takeBitmaps(): BitmapsUnderWay | { error: unknown } {
    const { settings, nodes, guest } = this.#machine;
    if (!settings.isOn('dirty-bitmaps')) return { sections: [], release() {} };
    const mapping = settings.parameters['block-bitmap-mapping'] as BitmapMapping | undefined;
    try {
      return sendBitmaps(nodes, { mapping, hasFooters: guest.framing?.footers ?? true });
    } catch (error) {
      return { error };
    }
  }

  async #connect(address: MachineAddress, signal: AbortSignal): Promise<Connection> {
    return this.#keep(this.#lines.connect(address, this.#tls(), signal));
  }

  /** Lines that are broken when this migration is. */
  async #keep(connecting: Promise<Connection>): Promise<Connection> {
    const line = await connecting;
    this.#open.add(line);
    return line;
  }

  async #openFile(address: FileAddress, signal: AbortSignal): Promise<SendMappedRam> {
    signal.throwIfAborted();
    const { settings } = this.#machine;
    // Without multifd QEMU goes through the page cache, too.
    const directIo = settings.parameters['direct-io'] === true && settings.isOn('multifd');
    this.#file = await this.#lines.createFile(address, { directIo });
    return { file: this.#file, offset: address.offset };
  }

  /** The migration has ended. */
  async #release(): Promise<void> {
    this.#open.clear();
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Goes on with a migration that is paused in postcopy. What fails then is seen in its status. */
  async #resume(address: MachineAddress): Promise<void> {
    void this.#outgoing?.resume((signal) => this.#connect(address, signal));
  }

  /** Writes the guest, which was stopped, as a stream, for a snapshot. To clients it is a migration that is over at once. */
  async saveState(sink: ByteSink): Promise<void> {
    const machine = this.#machine;
    const host = machine.host();
    const {
      postcopy: _,
      multifd: _multifd,
      xbzrle: _xbzrle,
      ...options
    } = migrationOptions(this.#machine, this.#lines.codecs, this.#xbzrle);
    const migration = new OutgoingMigration(
      {
        ...host,
        stop: async () => {},
        restart() {},
        leave() {},
        onStatus: (status) => (status === 'setup' || status === 'completed' ? host.onStatus(status) : undefined),
      },
      {
        ...{ ...options, returnPath: false, autoConverge: false, pauseBeforeSwitchover: false, switchoverAck: false },
        // A snapshot is written as fast as the disk is.
        parameters: { ...options.parameters, 'max-bandwidth': 0 },
        connect: async () => sinkLine(sink),
      },
    );
    this.#outgoing = migration;
    this.#refused = undefined;
    await migration.run();
    if (migration.status !== 'completed') throw new Error(migration.query()['error-desc']);
  }

  #accept(given: MigrateArguments): MachineAddress {
    const { settings } = this.#machine;
    if (settings.schema.isFrom('8.2')) {
      const address = this.#address(given);
      this.#requireTransport(address);
      this.#requireIdle(given);
      return address;
    }
    this.#requireIdle(given);
    try {
      return this.#address(given);
    } catch (error) {
      this.#refuse({});
      throw error;
    }
  }

  #refuse(reason: { 'error-desc'?: string }): void {
    this.#refused = { status: 'failed', ...reason };
    for (const status of ['setup', 'failed'] as const) this.#machine.tellStatus(status);
  }

  /** 7.2 connects before it notices that the migration needs more than one connection. It does not say why it failed. */
  async #refuseAfterConnecting(address: MachineAddress): Promise<void> {
    try {
      const line = await this.#lines.connect(address, this.#tls(), new AbortController().signal);
      line.destroy();
    } catch (error) {
      this.#refuse({ 'error-desc': (error as Error).message });
      throw error;
    }
    this.#refuse({});
  }

  #address(given: GivenAddress): MachineAddress {
    return machineAddress(given, outgoingTexts(this.#machine.settings.schema));
  }

  #requireTransport(address: MachineAddress): void {
    const isMapped = this.#machine.settings.isOn('mapped-ram');
    if (isMapped && address.transport !== 'file') throw new Error('Migration requires seekable transport (e.g. file)');
    if (this.#lacksChannels(address)) throw new Error('Migration requires multi-channel URIs (e.g. tcp)');
  }

  /** Whether the migration needs more connections than an address can have. */
  #lacksChannels(address: MachineAddress): boolean {
    const { settings } = this.#machine;
    const needsChannels = settings.isOn('multifd') || settings.isOn('postcopy-preempt');
    if (!needsChannels || (address.transport === 'file' && settings.isOn('mapped-ram'))) return false;
    if (address.transport === 'impossible') return address.isSynchronous;
    return address.transport !== 'socket' || address.type === 'fd';
  }

  #requireIdle({ resume = false, blk = false, inc = false }: MigrateArguments): void {
    const { settings, state } = this.#machine;
    const { parameters } = settings;
    const on = (name: string) => settings.isOn(name);
    if (resume) {
      this.#requirePaused();
      return;
    }
    // QEMU gives up its COLO then, too, and has a migration that never begins.
    const isColo = this.#machine.colo.status.mode !== 'none';
    if (isColo && settings.schema.isUntil('9.0')) throw new Error('duplicate yank instance');
    if (this.isUnderWay) throw new Error(inProgress);
    if (state === 'inmigrate') throw new Error('Guest is waiting for an incoming migration');
    if (state === 'postmigrate') throw new Error("Can't migrate the vm that was paused due to previous migration");
    if (on('mapped-ram') && parameters['tls-creds'] !== '') throw new Error('Cannot use TLS with mapped-ram');
    if (on('mapped-ram') && parameters['multifd-compression'] !== 'none') {
      throw new Error('Cannot use compression with mapped-ram');
    }
    if (parameters.mode === 'cpr-reboot') this.#requireCpr();
    if (!blk && !inc) return;
    if (on('x-colo')) throw new Error('No disk migration is required in COLO mode');
    if (on('block') || parameters['block-incremental'] === true) {
      throw new Error('Command options are incompatible with current migration capabilities');
    }
  }

  #requirePaused(): void {
    if (this.status !== 'postcopy-paused') throw new Error('Cannot resume if there is no paused migration');
    if (!this.#machine.settings.isOn('release-ram')) return;
    throw new Error('Postcopy recovery cannot work when release-ram capability is set');
  }

  #requireCpr(): void {
    const { settings } = this.#machine;
    if (settings.isOn('postcopy-ram') || settings.isOn('dirty-bitmaps')) {
      throw new Error('Cannot use postcopy with CPR');
    }
    if (settings.isOn('background-snapshot')) throw new Error('Cannot use background snapshot with CPR');
    if (settings.isOn('x-colo')) throw new Error('Cannot use COLO with CPR');
  }

  #tls(): LineTls | undefined {
    const { 'tls-creds': creds, 'tls-hostname': hostname } = this.#machine.settings.parameters;
    return creds === '' ? undefined : { creds: String(creds), hostname: String(hostname) };
  }

  /** x-checkpoint-delay was set, which begins a checkpoint. */
  checkpoint(): void {
    this.#outgoing?.checkpoint();
  }

  /** x-colo-lost-heartbeat at the primary side. @throws Error with QEMU's text */
  async failOver(): Promise<void> {
    await this.#outgoing?.failOver();
  }

  /** `migrate_cancel`. @throws Error with QEMU's text, in postcopy */
  cancel(): void {
    this.#outgoing?.cancel();
  }

  /** `migrate-start-postcopy`. @throws Error with QEMU's text */
  startPostcopy(): void {
    const { settings } = this.#machine;
    if (!settings.isOn('postcopy-ram') && !settings.isOn('dirty-bitmaps')) {
      throw new Error('Enable postcopy with migrate_set_capability before the start of migration');
    }
    if (this.status === 'none') throw new Error('Postcopy must be started after migration has been started');
    if (this.isUnderWay && settings.isOn('postcopy-ram')) this.#outgoing?.startPostcopy();
  }

  /** `migrate-pause`, if this side can. Returns whether it could. */
  pause(): boolean {
    const isPausable = this.status === 'postcopy-active' || this.status === 'postcopy-recover';
    if (isPausable) this.#outgoing?.pause();
    return isPausable;
  }

  /** The process ends. */
  close(): void {
    this.#outgoing?.close();
    this.break();
  }

  /** Breaks all lines, as `yank` does. */
  break(): void {
    for (const line of this.#open) line.destroy();
  }

  /** `migrate-continue`. @throws Error with QEMU's text */
  continue(state: MigrationStatus): void {
    if (this.#outgoing === undefined && state !== 'none') throw new Error('Migration not in expected state: none');
    this.#outgoing?.continue(state);
  }
}

/** Whether what fails when a line is made is an event, and not an error of the command. */
const isAsynchronous = (address: MachineAddress): boolean =>
  address.transport === 'impossible' ? !address.isSynchronous : address.transport === 'socket' && address.type !== 'fd';
