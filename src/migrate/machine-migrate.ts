/**
 * The outgoing migrations of a machine, one after another, as `migrate` and its companions start and steer them. What is
 * checked, and in which order, is QEMU's (docs/qmp.md).
 *
 *     migrate ── checks ──→ setup ──→ OutgoingMigration ──→ completed, failed, cancelled
 *        │  address does not parse: an error, and no migration (7.2: setup, failed)
 *        │  fd, file, exec cannot be opened: setup, failed, and an error
 *        └─ sockets: {} at once; what fails is an event
 */
import type { Connection } from '../io/connection.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { releaseRulesOf } from '../schema/release-rules.ts';
import type { Configuration } from '../vm/flow.ts';
import type { Machine } from './machine.ts';
import { type GivenAddress, type MachineAddress, machineAddress } from './machine-address.ts';
import { OutgoingMigration, type OutgoingMigrationOptions } from './outgoing-migration.ts';
import type { PrecopyParameters } from './precopy.ts';
import type { MigrationProgress, MigrationStatus } from './progress.ts';

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
  codecs: PageCodecs;
}

/** The arguments of `migrate`. */
export interface MigrateArguments extends GivenAddress {
  resume?: boolean;
  blk?: boolean;
  inc?: boolean;
}

/** Parameters that the loop reads anew for each decision. */
const liveParameters = [
  ...(['max-bandwidth', 'downtime-limit', 'avail-switchover-bandwidth', 'throttle-trigger-threshold'] as const),
  ...(['cpu-throttle-initial', 'cpu-throttle-increment', 'cpu-throttle-tailslow', 'max-cpu-throttle'] as const),
] satisfies (keyof PrecopyParameters)[];

const inProgress = "There's a migration process in progress";

export class MachineMigrate {
  readonly #machine: Machine;
  readonly #lines: MachineLines;
  #outgoing: OutgoingMigration | undefined;
  /** 7.2 counts an address that does not parse as a migration that failed. */
  #hasRefused = false;
  /** The lines of the present migration. */
  readonly #open = new Set<Connection>();

  constructor(machine: Machine, lines: MachineLines) {
    this.#machine = machine;
    this.#lines = lines;
  }

  get isUnderWay(): boolean {
    return this.#outgoing?.isUnderWay ?? false;
  }

  get status(): MigrationStatus {
    return this.#hasRefused ? 'failed' : (this.#outgoing?.status ?? 'none');
  }

  /** What `query-migrate` has of the source; undefined before the first migration. */
  query(): (Omit<MigrationProgress, 'total-time'> & { 'total-time'?: number }) | undefined {
    return this.#hasRefused ? { status: 'failed' } : this.#outgoing?.query();
  }

  /** Starts a migration. Resolves when the command is answered. @throws Error with QEMU's text */
  async migrate(given: MigrateArguments): Promise<void> {
    const address = this.#accept(given);
    const machine = this.#machine;
    this.#hasRefused = false;
    let opened: Promise<unknown> = Promise.resolve();
    const migration = new OutgoingMigration(machine.host(), {
      ...this.#options(),
      clock: machine.clock,
      connect: (signal) => {
        const connecting = this.#lines.connect(address, this.#tls(), signal);
        opened = connecting.then((line) => this.#open.add(line));
        opened.catch(() => {});
        return connecting;
      },
    });
    this.#outgoing = migration;
    const ended = migration.run().finally(() => this.#open.clear());
    if (isAsynchronous(address)) return;
    try {
      await opened;
    } catch (error) {
      await ended;
      throw error;
    }
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
      this.#hasRefused = true;
      for (const status of ['setup', 'failed'] as const) this.#machine.tellStatus(status);
      throw error;
    }
  }

  #address(given: GivenAddress): MachineAddress {
    return machineAddress(given, addressTexts(this.#machine, 'Channel list has more than one main entry'));
  }

  #requireTransport(address: MachineAddress): void {
    const { settings } = this.#machine;
    const isMapped = settings.isOn('mapped-ram');
    if (isMapped && address.transport !== 'file') throw new Error('Migration requires seekable transport (e.g. file)');
    const needsChannels = settings.isOn('multifd') || settings.isOn('postcopy-preempt');
    if (!needsChannels || (address.transport === 'file' && isMapped)) return;
    const hasChannels = address.transport === 'socket' && address.type !== 'fd';
    if (!hasChannels) throw new Error('Migration requires multi-channel URIs (e.g. tcp)');
  }

  #requireIdle({ resume = false, blk = false, inc = false }: MigrateArguments): void {
    const { settings, state } = this.#machine;
    const { parameters } = settings;
    const on = (name: string) => settings.isOn(name);
    if (resume) throw new Error('Cannot resume if there is no paused migration');
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

  /** What the settings say about the migration that begins now. */
  #options(): Omit<OutgoingMigrationOptions, 'connect'> {
    const { settings, guest } = this.#machine;
    const on = (name: string) => settings.isOn(name);
    const is10 = settings.schema.isFrom('10.0');
    const rules = rulesFor(guest.configuration, settings.schema.releaseName);
    return {
      parameters: parametersOf(this.#machine),
      autoConverge: on('auto-converge'),
      pauseBeforeSwitchover: on('pause-before-switchover'),
      alwaysEntersDevice: is10,
      forcesSyncs: is10,
      switchoverAck: on('switchover-ack'),
      returnPath: on('return-path'),
      ...(rules === undefined ? {} : { rules }),
      ...(guest.iterables === undefined ? {} : { iterables: guest.iterables }),
      ...(on('xbzrle') ? { xbzrle: { cacheSize: this.#number('xbzrle-cache-size') } } : {}),
      ...(on('multifd') ? { multifd: this.#multifd() } : {}),
    };
  }

  #multifd(): NonNullable<OutgoingMigrationOptions['multifd']> {
    const { settings, uuid } = this.#machine;
    const compression = settings.parameters['multifd-compression'] as 'none' | 'zlib' | 'zstd';
    return {
      ...{ channels: this.#number('multifd-channels'), compression, codecs: this.#lines.codecs },
      ...(compression === 'none' ? {} : { level: this.#number(`multifd-${compression}-level`) }),
      ...(uuid === undefined ? {} : { uuid }),
    };
  }

  #number(parameter: string): number {
    return Number(this.#machine.settings.parameters[parameter]);
  }

  /** `migrate_cancel`. */
  cancel(): void {
    this.#outgoing?.cancel();
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

/** How the release of a machine words errors of addresses. */
export function addressTexts({ settings: { schema } }: Machine, tooMany: string) {
  return {
    unknown: (uri: string) =>
      schema.isFrom('8.2')
        ? `unknown migration protocol: ${uri}`
        : "Parameter 'uri' expects a valid migration protocol",
    tooMany: schema.isFrom('10.0') ? tooMany : 'Channel list has more than one entries',
  };
}

/** The rules of a release; of a newer machine type those of that type. */
function rulesFor(configuration: Configuration | undefined, release: Parameters<typeof releaseRulesOf>[1]) {
  try {
    return releaseRulesOf(configuration?.machine, release);
  } catch {
    return undefined;
  }
}

/** The parameters of the loop as they are at each moment. Integers above 2^53 become numbers. */
function parametersOf({ settings }: Machine): PrecopyParameters {
  const members = liveParameters.map((name) => {
    const get = () => {
      const value = settings.parameters[name] ?? 0;
      return typeof value === 'bigint' ? Number(value) : value;
    };
    return [name, { get, enumerable: true }] as const;
  });
  return Object.defineProperties({}, Object.fromEntries(members)) as PrecopyParameters;
}
