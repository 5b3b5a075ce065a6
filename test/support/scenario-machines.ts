/**
 * VMs of scenarios in this process: the machine, monitor and lines of `vmferry vm`. Unless the scenario needs real
 * sockets, lines of sockets are in memory and time is virtual; files and programs are real.
 */

import { copyGuest, openGuest } from '../../src/cli/vm/guests.ts';
import { makeLines } from '../../src/cli/vm/lines.ts';
import { parseUuid } from '../../src/cli/vm/specs.ts';
import { createStateFile, requireState } from '../../src/cli/vm/state-file.ts';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { type Clock, systemClock } from '../../src/io/clock.ts';
import { type Connection, PeerError } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { listenAt } from '../../src/io/node/listen.ts';
import { UserObjects } from '../../src/io/node/tls-objects.ts';
import { BlockNodes } from '../../src/migrate/block-node.ts';
import { DirtyRate } from '../../src/migrate/dirty-rate.ts';
import { onlyGlobalState } from '../../src/migrate/global-state.ts';
import { Machine } from '../../src/migrate/machine.ts';
import { addressOfUri, type MachineAddress } from '../../src/migrate/machine-address.ts';
import { type IncomingLines, MachineIncoming } from '../../src/migrate/machine-incoming.ts';
import { type MachineLines, MachineMigrate } from '../../src/migrate/machine-migrate.ts';
import { machineServer } from '../../src/qmp/machine/machine-server.ts';
import type { QmpSession } from '../../src/qmp/session.ts';
import { openFile } from '../../src/read/open.ts';
import { MigrationSettings } from '../../src/schema/migration-settings.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import { MemoryListener } from '../migrate/memory-listener.ts';
import type { RecordedRelease, VmSpec } from '../qmp/scenario.ts';
import { type Message, messageOf } from '../qmp/scenario-normal.ts';
import type { Peer, PlayedVm, Stage } from '../qmp/scenario-player.ts';
import { settle } from './manual-clock.ts';
import { noDescriptors } from './no-descriptors.ts';
import { VirtualClock } from './virtual-clock.ts';

/** Sockets in memory, by their address. */
class MemorySockets {
  readonly #listeners = new Map<string, MemoryListener>();
  #ports = 40_000;

  connect(address: SocketAddress): Connection {
    const listener = this.#listeners.get(nameOf(address));
    if (listener !== undefined) return listener.connect();
    const [where, why] =
      address.type === 'unix'
        ? [address.path, 'No such file or directory']
        : [`${address.host}:${address.port}`, 'Connection refused'];
    throw new PeerError(`Failed to connect to '${where}': ${why}`);
  }

  listen(address: SocketAddress): MemoryListener {
    const bound =
      address.type === 'inet' && address.port === '0' ? { ...address, port: String(this.#ports++) } : address;
    const name = nameOf(bound);
    const listener = new MemoryListener(name);
    this.#listeners.set(name, listener);
    const close = listener.close.bind(listener);
    listener.close = () => {
      this.#listeners.delete(name);
      return close();
    };
    return listener;
  }
}

type SocketAddress = { type: 'unix'; path: string } | { type: 'inet'; host: string; port: string };

const nameOf = (address: SocketAddress): string =>
  address.type === 'unix' ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`;

/** The address of a plain socket. */
function socketOf(address: MachineAddress): SocketAddress | undefined {
  if (address.transport !== 'socket' || address.type === 'fd') return undefined;
  return address;
}

/** A stage with VMs in this process. */
export class MachineStage implements Stage {
  readonly #sockets: MemorySockets | undefined;
  readonly #clock: Clock;

  constructor(
    readonly dir: string,
    readonly release: RecordedRelease,
    readonly ram: Uint8Array,
    isReal: boolean,
  ) {
    this.#sockets = isReal ? undefined : new MemorySockets();
    this.#clock = isReal ? systemClock : new VirtualClock();
  }

  async start(spec: VmSpec): Promise<PlayedVm> {
    const vm = new ScenarioMachine(this, this.#sockets, this.#clock);
    await vm.start(spec);
    return vm;
  }

  reads = (uri: string): Promise<Peer> => peerThatReads(uri);
  sends = (text: string, uri: string): Promise<Peer> => peerThatSends(text, uri);
  pause = (): Promise<void> => settle();
}

/** A peer that accepts lines, and reads what comes. */
export async function peerThatReads(uri: string): Promise<Peer> {
  const listener = await listenAt(parseMigrationUri(uri));
  const lines: Connection[] = [];
  const take = async () => {
    for (;;) {
      const line = await listener.accept();
      if (line === undefined) return;
      lines.push(line);
      const buffer = new Uint8Array(65536);
      void (async () => {
        while ((await line.read(buffer, 0)) > 0);
      })().catch(() => {});
    }
  };
  void take().catch(() => {});
  return {
    close() {
      void listener.close();
      for (const line of lines) line.destroy();
    },
  };
}

/** A peer that connects, and sends a text. */
export async function peerThatSends(text: string, uri: string): Promise<Peer> {
  const line = await connectTo(parseMigrationUri(uri));
  await line.write(new TextEncoder().encode(text));
  return { close: () => line.destroy() };
}

class ScenarioMachine implements PlayedVm {
  readonly events: Message[] = [];
  readonly ended: Promise<number | string>;
  readonly #stage: MachineStage;
  readonly #sockets: MemorySockets | undefined;
  readonly #clock: Clock;
  readonly #answers: Message[] = [];
  readonly #watchers = new Set<() => void>();
  #session: QmpSession | undefined;
  #migrate: MachineMigrate | undefined;
  #incoming: MachineIncoming | undefined;
  #isEnding = false;
  #end: (code: number | string) => void = () => {};

  constructor(stage: MachineStage, sockets: MemorySockets | undefined, clock: Clock) {
    this.#stage = stage;
    this.#sockets = sockets;
    this.#clock = clock;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    void this.ended.then(() => this.#wake());
  }

  async start(spec: VmSpec): Promise<void> {
    const { incoming: uri, paused = false, uuid, object = [], memory = 16, machine: type = 'none' } = spec;
    const objects = new UserObjects();
    for (const each of object) objects.add(each);
    const clock = this.#clock;
    const machine = new Machine({
      settings: new MigrationSettings(schemaOf(this.#stage.release)),
      guest: uri === undefined ? await this.#guest(spec) : undefined,
      ...{ state: paused ? 'prelaunch' : 'running', mayStart: !paused, clock },
      uuid: uuid === undefined ? undefined : parseUuid(uuid),
      // As in the process of `vmferry vm`: nothing follows its end.
      emit: (event, data) => (this.#isEnding ? undefined : server.emit(event, data)),
    });
    const lines = this.#lines(objects);
    this.#migrate = new MachineMigrate(machine, lines);
    if (uri !== undefined) {
      const expected = { machine: type, memory: memory << 20, isDeferred: uri === 'defer' };
      this.#incoming = new MachineIncoming(machine, lines, expected);
    }
    const { release } = this.#stage;
    const dirtyRate = new DirtyRate({ vm: () => machine.guest, release, timeOfDay: () => 0, clock });
    const server = machineServer(
      { machine, migrate: this.#migrate, incoming: this.#incoming, dirtyRate },
      {
        ...{ smp: 1, chardevs: () => ['compat_monitor0', 'compat_monitor1'], saveMemory: async () => {} },
        memory: async () => ({ ranges: [], read: async () => {} }),
        createFile: (name, isOld) => createStateFile(name, isOld, () => undefined),
        requireFile: (name, isOld) => requireState(name, isOld, () => undefined),
        ...{ descriptors: noDescriptors(release), nodes: new BlockNodes([]), now: () => 0 },
        loadState: () => Promise.reject(new Error('there are no disks')),
        addObject: (properties) => objects.add(properties),
        removeObject: (id) => objects.remove(id),
        quit: () => {
          server.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
          this.#migrate?.close();
          this.#stop(0);
        },
      },
      () => 0,
    );
    this.#session = server.connect((text) => this.#take(messageOf(text)));
    await this.ask('{"execute": "qmp_capabilities"}');
    if (uri !== undefined && uri !== 'defer') {
      await this.#incoming?.listen(addressOfUri(uri, { unknown: (text) => `unknown migration protocol: ${text}` }));
    }
    void this.#incoming?.ended.then((how) => {
      if (how === 'failed' && this.#incoming?.exitsOnError === true) this.#end(1);
    });
  }

  async #guest({ machine = 'none', memory = 16, paused: isPaused = false, empty = false }: VmSpec) {
    const size = memory << 20;
    const ram = new GuestRam(new MemoryFile(), [{ idstr: machine === 'pc' ? 'pc.ram' : 'ram', size }]);
    const [block] = ram.blocks;
    if (block !== undefined && !empty) await ram.load(block, new MemoryFile('ram', this.#stage.ram));
    const configuration = { machine, capabilities: [] };
    return new SyntheticGuest({ ram, configuration, devices: onlyGlobalState(), clock: this.#clock, isPaused });
  }

  #lines(objects: UserObjects): MachineLines & IncomingLines {
    const options = { smp: 1, scratch: this.#stage.dir };
    const sockets = this.#sockets;
    const lines = makeLines({
      ...{ objects, scratch: this.#stage.dir, sources: [], report: () => {} },
      descriptors: noDescriptors(this.#stage.release),
      open: async (file) => openGuest(await openFile(file), options),
      openFile: (address) => copyGuest(address, options),
    });
    return {
      ...lines,
      makeFile: () => new MemoryFile('arrived'),
      async connect(address, tls, signal) {
        const socket = tls === undefined ? socketOf(address) : undefined;
        return sockets && socket ? sockets.connect(socket) : lines.connect(address, tls, signal);
      },
      async listen(address, tls) {
        const socket = tls.creds === '' ? socketOf(address) : undefined;
        return sockets && socket ? sockets.listen(socket) : lines.listen(address, tls);
      },
    };
  }

  #take(message: Message): void {
    if ('QMP' in message) return;
    if ('event' in message) this.events.push(message);
    else this.#answers.push(message);
    this.#wake();
  }

  #wake(): void {
    for (const look of [...this.#watchers]) look();
  }

  async ask(text: string): Promise<Message> {
    this.#answers.length = 0;
    await this.#session?.receive(new TextEncoder().encode(`${text}\n`));
    const [answer] = this.#answers;
    if (answer === undefined) throw new Error(`not answered: ${text}`);
    return answer;
  }

  moreEvents(count: number): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      if (this.events.length > count) look();
    });
  }

  /** As the process of `vmferry vm` ends. */
  #stop(code: number | string): void {
    this.#isEnding = true;
    this.#migrate?.break();
    this.#incoming?.close();
    this.#end(code);
  }

  async kill(): Promise<void> {
    this.#stop('SIGKILL');
  }
}
