/**
 * The process of `vmferry vm`: the machine, its monitors, and its end.
 *
 *     guest, listener of --incoming ──→ ready: monitors accept ──→ quit                      0
 *                  │                                          ├──→ incoming migration failed 1
 *                  └──→ 1: bad file; 2: cannot listen         └──→ standard input ended, and it is the only monitor: 0
 */
import { closeSync, realpathSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import type { WorkloadOptions } from '../../guest/workload.ts';
import type { ByteSource, ByteStore } from '../../io/byte-source.ts';
import type { Listener } from '../../io/connection.ts';
import { type MigrationAddress, parseMigrationUri } from '../../io/migration-address.ts';
import { type DescriptorCalls, loadDescriptorCalls } from '../../io/node/descriptor-calls.ts';
import { listenAt } from '../../io/node/listen.ts';
import { UserObjects } from '../../io/node/tls-objects.ts';
import type { BlockNodes } from '../../migrate/block-node.ts';
import { DirtyRate } from '../../migrate/dirty-rate.ts';
import { Machine } from '../../migrate/machine.ts';
import { addressOfUri } from '../../migrate/machine-address.ts';
import { MachineIncoming } from '../../migrate/machine-incoming.ts';
import { MachineMigrate } from '../../migrate/machine-migrate.ts';
import { type Misbehaviour, misbehavingMigration } from '../../migrate/misbehaviour.ts';
import { open } from '../../node.ts';
import { DescriptorTable } from '../../qmp/machine/descriptor-table.ts';
import { machineServer } from '../../qmp/machine/machine-server.ts';
import { misbehavingMonitor } from '../../qmp/misbehaving-monitor.ts';
import { type Monitor, serveMonitor } from '../../qmp/serve.ts';
import type { QmpServer } from '../../qmp/server.ts';
import { MigrationSettings } from '../../schema/migration-settings.ts';
import { schemaOf } from '../../schema/qapi/schema.ts';
import type { ReleaseName } from '../../schema/release-rules.ts';
import { UsageError } from '../exit-codes.ts';
import { openInput } from '../input.ts';
import { warn } from '../messages.ts';
import { openDrives } from './drives.ts';
import { copyGuest, copyOpened, type FileGuestOptions, makeSynthetic, openGuest } from './guests.ts';
import { makeLines } from './lines.ts';
import { physicalMemory, saveMemory } from './physical.ts';
import { ringsOf } from './rings.ts';
import { createStateFile, requireState } from './state-file.ts';
import { stdioListener } from './stdio.ts';

/** The options of `vmferry vm`. */
export interface VmOptions {
  qmp: string[];
  incoming?: string;
  load?: string;
  channel?: string[];
  machine?: 'none' | 'pc';
  memory?: number;
  smp?: number;
  ram?: string;
  workload?: WorkloadOptions;
  dirtyRingSize?: number;
  uuid?: string;
  name?: string;
  paused?: boolean;
  object?: string[];
  drive?: string[];
  compat: ReleaseName;
  misbehave?: Misbehaviour;
  scratch: string;
}

/** RAM of a VM of its own, if nothing else is said. */
const defaultMemory = 128 << 20;
/** How long clients may take to read the last answers, in ms. */
const flushMs = 2000;

export async function runVm(options: VmOptions): Promise<void> {
  // Node 24 was seen to hang for ever in process.exit(): V8 compiled in the background, and waited for a garbage collection
  // that nobody does any more.
  setFlagsFromString('--no-concurrent-sparkplug');
  const vm = new VmProcess(options);
  process.exitCode = await vm.run();
  // What is still under way has nobody to tell any more.
  process.exit();
}

class VmProcess {
  readonly #options: VmOptions;
  readonly #objects = new UserObjects();
  readonly #monitors: Monitor[] = [];
  /** Ids of the monitors that are sockets, and where they listen. */
  readonly #chardevs = new Map<string, string>();
  #server: QmpServer | undefined;
  #migrate: MachineMigrate | undefined;
  /** The end was announced. */
  #isEnding = false;
  #end: (exitCode: number) => void = () => {};
  readonly #ended = new Promise<number>((resolve) => {
    this.#end = resolve;
  });

  constructor(options: VmOptions) {
    this.#options = options;
    for (const spec of options.object ?? []) this.#objects.add(spec);
  }

  /** Returns the exit code. */
  async run(): Promise<number> {
    const addresses = this.#options.qmp.map(monitorAddress);
    const nodes = await openDrives(this.#options.drive ?? []);
    const calls = await loadDescriptorCalls();
    const { machine, migrate, incoming, descriptors } = await this.#makeMachine(nodes, calls);
    this.#migrate = migrate;
    const dirtyRate = new DirtyRate({
      ...{ vm: () => machine.guest, release: this.#options.compat, timeOfDay: Date.now },
      ring: machine.dirtyLimit.ring,
    });
    this.#server = machineServer(
      { machine, migrate, incoming, dirtyRate },
      {
        ...{ name: this.#options.name, smp: this.#options.smp ?? 1, chardevs: () => [...this.#chardevs.keys()] },
        chardevUri: (id) => this.#chardevs.get(id) as string,
        quit: (dismissJobs) => this.#quit(dismissJobs),
        memory: async () =>
          machine.hasGuest ? await physicalMemory(machine.guest) : { ranges: [], read: async () => {} },
        saveMemory: async (at, size, filename) => {
          if (machine.hasGuest) await saveMemory(machine.guest, at, size, filename);
        },
        createFile: (name, isOld) => createStateFile(name, isOld, descriptors.open.bind(descriptors)),
        requireFile: (name, isOld) => requireState(name, isOld, descriptors.open.bind(descriptors)),
        ...{ nodes, now: Date.now, descriptors },
        loadState: async (source) => {
          // The disk stays open.
          const { name, size } = source;
          const state: ByteSource = {
            name,
            size,
            read: (target, at) => source.read(target, at),
            close: async () => {},
          };
          return copyOpened(await open(state), this.#fromFile(this.#options.scratch));
        },
        addObject: (properties) => this.#objects.add(properties),
        removeObject: (id) => this.#objects.remove(id),
      },
      Date.now,
    );
    const uri = this.#options.incoming;
    // What arrives may still have the disks open at its source.
    if (incoming === undefined) await nodes.loadBitmaps();
    if (incoming !== undefined && uri !== undefined && uri !== 'defer') await listenFor(incoming, uri);
    for (const address of addresses) await this.#open(address, calls);
    void incoming?.ended.then(async (how) => {
      if (how === 'completed') await nodes.loadBitmaps().catch((error: Error) => warn(error.message));
      if (how === 'failed' && incoming.exitsOnError) this.#end(1);
    });
    const exitCode = await this.#ended;
    migrate.close();
    incoming?.close();
    await this.#close();
    // Whoever has the VM now has its disks, too.
    if (machine.state !== 'postmigrate') await nodes.keepBitmaps().catch((error: Error) => warn(error.message));
    return exitCode;
  }

  async #makeMachine(nodes: BlockNodes, calls: DescriptorCalls | undefined) {
    const { compat, paused = false, uuid, incoming: uri, load, machine: type, memory, scratch } = this.#options;
    const { dirtyRingSize, smp = 1 } = this.#options;
    const directory = realpathSync(scratch);
    const guest = uri === undefined ? await this.#makeGuest(directory) : undefined;
    const machine = new Machine({
      ...{ settings: new MigrationSettings(schemaOf(compat)), guest, uuid, nodes, mayStart: !paused },
      state: load !== undefined ? 'paused' : paused ? 'prelaunch' : 'running',
      rings: dirtyRingSize === undefined ? undefined : ringsOf(smp, dirtyRingSize),
      // A migration that is cancelled for it is the last event.
      emit: (event, data) => (this.#isEnding ? undefined : this.#server?.emit(event, data)),
    });
    const descriptors = new DescriptorTable({
      ...{ schema: schemaOf(compat), system: calls && { ...calls, close: closeSync } },
      isRunning: () => machine.isRunning,
    });
    const lines = makeLines({
      descriptors,
      ...{ objects: this.#objects, scratch: directory, report: warn },
      sources: load === undefined ? [] : [load, ...(this.#options.channel ?? [])],
      openFile: (address) => copyGuest(address, this.#fromFile(directory)),
      open: async (file: ByteStore) => openGuest(await open(file), this.#fromFile(directory)),
    });
    const expected = { machine: type, memory, isDeferred: uri === 'defer', vcpus: smp };
    const incoming = uri === undefined ? undefined : new MachineIncoming(machine, lines, expected);
    const { misbehave } = this.#options;
    const migrate = new MachineMigrate(machine, lines, misbehave && misbehavingMigration(misbehave));
    return { machine, migrate, incoming, descriptors };
  }

  async #makeGuest(scratch: string) {
    const {
      load,
      channel,
      machine = 'none',
      memory = defaultMemory,
      ram,
      workload,
      smp = 1,
      paused = false,
    } = this.#options;
    if (load !== undefined)
      return openGuest(await openInput(load, { ...(channel && { channel }) }), this.#fromFile(scratch));
    return makeSynthetic({ machine, memory, ram, workload, smp, isPaused: paused, scratch });
  }

  #fromFile(scratch: string): FileGuestOptions {
    return { workload: this.#options.workload, smp: this.#options.smp ?? 1, scratch };
  }

  async #open(address: MigrationAddress, calls: DescriptorCalls | undefined): Promise<void> {
    const server = this.#server as QmpServer;
    const isStdio = address.transport === 'stdio';
    const listener: Listener = isStdio
      ? stdioListener(() => this.#options.qmp.length === 1 && this.#end(0))
      : await listenAt(address, { descriptors: calls });
    if (!isStdio) this.#chardevs.set(`compat_monitor${this.#monitors.length}`, listener.uri);
    const { misbehave } = this.#options;
    const served = misbehave === undefined ? listener : misbehavingMonitor(listener, misbehave);
    this.#monitors.push(serveMonitor(server, served));
  }

  #quit(dismissJobs: () => void): void {
    this.#server?.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
    this.#migrate?.close();
    dismissJobs();
    this.#isEnding = true;
    // The answer to quit comes first.
    setImmediate(() => this.#end(0));
  }

  /** Lets the last answers and events leave. */
  async #close(): Promise<void> {
    const flushed = Promise.all(this.#monitors.map((monitor) => monitor.flush()));
    await Promise.race([flushed, new Promise((resolve) => setTimeout(resolve, flushMs).unref())]);
    for (const monitor of this.#monitors) await monitor.close();
  }
}

/** @throws UsageError for what no monitor can be at */
function monitorAddress(text: string): MigrationAddress {
  if (text === 'stdio') return { transport: 'stdio' };
  const [uri = ''] = text.split(',');
  if (/^(unix|tcp|fd):/.test(uri)) return parseMigrationUri(uri);
  throw new UsageError(`expected unix:PATH, tcp:HOST:PORT, fd:N or stdio for a monitor, got ${text}`);
}

async function listenFor(incoming: MachineIncoming, uri: string): Promise<void> {
  const address = addressOfUri(uri, { unknown: (text) => `unknown migration protocol: ${text}` });
  await incoming.listen(address);
}
