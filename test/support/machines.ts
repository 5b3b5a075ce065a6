/**
 * Machines in one process, each with its monitor, whose lines are in memory: `unix:NAME` is a listener of that name. Time
 * is virtual, so a migration takes as long as its work, and the guests write as if it took longer.
 */

import { ringsOf } from '../../src/cli/vm/rings.ts';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { type Connection, PeerError } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { BlockNodes } from '../../src/migrate/block-node.ts';
import { DirtyRate } from '../../src/migrate/dirty-rate.ts';
import { onlyGlobalState } from '../../src/migrate/global-state.ts';
import { Machine, type MachineOptions } from '../../src/migrate/machine.ts';
import type { MachineAddress } from '../../src/migrate/machine-address.ts';
import { type IncomingLines, MachineIncoming } from '../../src/migrate/machine-incoming.ts';
import { type MachineLines, MachineMigrate } from '../../src/migrate/machine-migrate.ts';
import { type Misbehaviour, misbehavingMigration } from '../../src/migrate/misbehaviour.ts';
import { parseJson } from '../../src/qmp/json-reader.ts';
import { machineServer } from '../../src/qmp/machine/machine-server.ts';
import { openFile } from '../../src/read/open.ts';
import { MigrationSettings } from '../../src/schema/migration-settings.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import type { ReleaseName } from '../../src/schema/release-rules.ts';
import { readIterables } from '../../src/store/iterables.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { MemoryListener } from '../migrate/memory-listener.ts';
import { noDescriptors } from './no-descriptors.ts';
import { VirtualClock } from './virtual-clock.ts';

type Json = Record<string, unknown>;

/** What a command wrote into a file. */
class StateFile {
  async write(): Promise<void> {}
  async commit(): Promise<void> {}
}

/** Listeners by name, and the clock of all machines. */
export class Network {
  readonly clock = new VirtualClock();
  readonly listeners = new Map<string, MemoryListener>();
  /** Changes each line that is connected, by its number from 0. */
  wrap: (line: Connection, number: number) => Connection = (line) => line;
  #lines = 0;

  connect(address: MachineAddress): Connection {
    if (address.transport === 'impossible') throw new Error(address.cannotConnect);
    const name = address.transport === 'socket' && address.type === 'unix' ? address.path : '';
    const listener = this.listeners.get(name);
    if (listener === undefined) throw new PeerError(`Failed to connect to '${name}': Connection refused`);
    return this.wrap(listener.connect(), this.#lines++);
  }

  listen(address: MachineAddress): MemoryListener {
    if (address.transport !== 'socket' || address.type !== 'unix') throw new Error('expected unix:NAME');
    const listener = new MemoryListener(`unix:${address.path}`);
    this.listeners.set(address.path, listener);
    const close = listener.close.bind(listener);
    listener.close = () => {
      this.listeners.delete(address.path);
      return close();
    };
    return listener;
  }
}

export interface TestVmOptions {
  release?: ReleaseName;
  /** Bytes of RAM. Default 8 MiB. */
  memory?: number;
  workload?: WorkloadOptions;
  /** Waits for a migration. */
  incoming?: 'defer' | (string & {});
  expected?: { machine?: string; memory?: number; vcpus?: number };
  isPaused?: boolean;
  uuid?: string;
  misbehave?: Misbehaviour;
  /** Its disks. Default: none. */
  nodes?: BlockNodes;
  /** Pages of the dirty ring of each vCPU. Default: there are no rings. */
  ringSize?: number;
  /** Its network cards. Default: none. */
  cards?: MachineOptions['cards'];
}

/** A VM and the client of its monitor. */
export class TestVm {
  readonly events: string[] = [];
  readonly machine: Machine;
  readonly migrate: MachineMigrate;
  readonly incoming: MachineIncoming | undefined;
  /** What it would print on standard error. */
  readonly reports: string[] = [];
  hasQuit = false;
  readonly #answers: Json[] = [];
  readonly #watchers = new Set<() => void>();
  readonly #session;

  constructor(
    readonly network: Network,
    {
      release = '9.0',
      memory = 8 << 20,
      workload,
      incoming,
      expected = {},
      isPaused = false,
      uuid,
      misbehave,
      nodes = new BlockNodes([]),
      ringSize,
      cards,
    }: TestVmOptions = {},
  ) {
    const { clock } = network;
    const make = () =>
      new SyntheticGuest({
        ...{ ram: new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: memory }]), workload, clock, isPaused },
        devices: onlyGlobalState(),
      });
    this.machine = new Machine({
      ...{ settings: new MigrationSettings(schemaOf(release)), guest: incoming === undefined ? make() : undefined },
      ...{ state: isPaused ? 'prelaunch' : 'running', mayStart: !isPaused, uuid, clock, nodes, cards },
      rings: ringSize === undefined ? undefined : ringsOf(workload?.vcpus ?? 1, ringSize),
      emit: (event, data) => server.emit(event, data),
    });
    const lines: MachineLines & IncomingLines = {
      codecs: new NodeCodecs(),
      connect: async (address) => network.connect(address),
      listen: async (address) => network.listen(address),
      createFile: () => new MemoryFile('written'),
      openFile: () => Promise.reject(new Error('there are no files')),
      requireReadable: () => {},
      makeFile: () => new MemoryFile('arrived'),
      open: (file) => this.#open(file as MemoryFile),
      report: (text) => void this.reports.push(text),
    };
    this.migrate = new MachineMigrate(this.machine, lines, misbehave && misbehavingMigration(misbehave));
    const isDeferred = incoming === 'defer';
    this.incoming =
      incoming === undefined ? undefined : new MachineIncoming(this.machine, lines, { ...expected, isDeferred });
    const { ring } = this.machine.dirtyLimit;
    const dirtyRate = new DirtyRate({ vm: () => this.machine.guest, release, timeOfDay: () => 0, clock, ring });
    const server = machineServer(
      { machine: this.machine, migrate: this.migrate, incoming: this.incoming, dirtyRate },
      {
        ...{
          smp: 1,
          chardevs: () => ['compat_monitor0'],
          memory: async () => ({ ranges: [], read: async () => {} }),
          saveMemory: async () => {},
        },
        ...{
          nodes,
          now: () => 0,
          loadState: () => Promise.reject(new Error('there are no disks')),
        },
        ...{ addObject: () => {}, removeObject: () => {}, requireFile: () => {}, createFile: () => new StateFile() },
        descriptors: noDescriptors(release),
        quit: () => {
          this.hasQuit = true;
        },
      },
      () => 0,
    );
    this.#session = server.connect((text) => this.#take(parseJson(text) as Json));
    void this.#session.receive(new TextEncoder().encode('{"execute": "qmp_capabilities"}'));
    if (incoming !== undefined && !isDeferred) {
      void this.incoming?.listen({ transport: 'socket', type: 'unix', path: incoming });
    }
  }

  async #open(file: MemoryFile): Promise<SyntheticGuest> {
    const opened = await openFile(file);
    const vm = await openSavedVm(opened, {
      makeScratch: () => new MemoryFile(),
      ...{ devices: true, whole: true },
    });
    return new SyntheticGuest({
      ram: new GuestRam(new MemoryFile(), vm.ram),
      configuration: vm.configuration ?? 'absent',
      devices: { devices: vm.devices, description: vm.description },
      ...{ ignored: vm.ignored, framing: vm.framing, clock: this.network.clock, isPaused: true },
      iterables: await readIterables(opened, vm.iterables),
    });
  }

  #take(message: Json): void {
    if ('QMP' in message) return;
    if ('event' in message) {
      const { status, pass } = (message.data ?? {}) as Json;
      this.events.push([message.event, status ?? pass].filter((part) => part !== undefined).join(' '));
    } else this.#answers.push(message);
    for (const look of this.#watchers) look();
  }

  /** Runs a command. @throws Error with the server's text */
  async execute(command: string, given: Json = {}): Promise<Json> {
    this.#answers.length = 0;
    await this.#session.receive(new TextEncoder().encode(JSON.stringify({ execute: command, arguments: given })));
    const [answer] = this.#answers;
    if (answer === undefined) throw new Error(`${command} was not answered`);
    if ('error' in answer) throw new Error((answer.error as { desc: string }).desc);
    return answer.return as Json;
  }

  async switchOn(...capabilities: string[]): Promise<void> {
    const on = capabilities.map((capability) => ({ capability, state: true }));
    await this.execute('migrate-set-capabilities', { capabilities: on });
  }

  /** Waits for an event, such as `MIGRATION completed`, until there were `count` of them. */
  event(name: string, count = 1): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (this.events.filter((each) => each === name).length < count) return;
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** The content of its RAM. */
  async ram(): Promise<Buffer> {
    const { guest } = this.machine;
    const parts: Buffer[] = [];
    for (const block of guest.ram.blocks) {
      const bytes = new Uint8Array(block.usedLength);
      await guest.ram.read(block, 0, bytes);
      parts.push(Buffer.from(bytes.buffer));
    }
    return Buffer.concat(parts);
  }
}

/** The events without the passes in the middle, whose number is not the matter. */
export const withoutPasses = (events: readonly string[]): string[] =>
  events.filter((event) => !event.startsWith('MIGRATION_PASS'));
