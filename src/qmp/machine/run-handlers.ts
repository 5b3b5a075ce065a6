/** What a machine does with the commands beside migration: running, stopping, names, and what clients ask at their start. */
import { type StateOutput, saveDeviceState } from '../../migrate/device-state.ts';
import type { Machine } from '../../migrate/machine.ts';
import { formatUuid } from '../../vm/uuid.ts';
import type { JsonObject } from '../json-value.ts';
import { QmpError } from '../qmp-error.ts';
import type { Handler } from '../server.ts';
import type { DescriptorTable } from './descriptor-table.ts';
import { humanMonitor, type PhysicalMemory } from './human-monitor.ts';
import type { MachineParts } from './migration-handlers.ts';
import type { SnapshotHost } from './snapshots.ts';

/** What the process around a machine does for its monitor. */
export interface MachineHost extends SnapshotHost {
  name?: string | undefined;
  /** Virtual processors. */
  smp: number;
  /** What clients have passed. */
  descriptors: DescriptorTable;
  /** Ends the process. Calls `dismissJobs` after the event that says so. */
  quit(dismissJobs: () => void): void;
  /** Ids of the sockets of monitors, for `yank`. */
  chardevs(): string[];
  /** Where the socket with that id listens. */
  chardevUri?(id: string): string;
  /** Guest-physical memory as it is now. */
  memory(): Promise<PhysicalMemory>;
  /** Writes guest-physical memory into a file. @throws Error with QEMU's text */
  saveMemory(address: bigint, size: bigint, filename: string): Promise<void>;
  /**
   * A file that a command writes, made anew. `isOld`: with the texts of 7.2.
   * @throws Error with QEMU's text if it cannot be made
   */
  createFile(filename: string, isOld: boolean): StateOutput;
  /** Requires that a file can be read. @throws Error with QEMU's text */
  requireFile(filename: string, isOld: boolean): void;
  /** `object-add`, `object-del`. @throws Error with QEMU's text */
  addObject(properties: JsonObject): void;
  removeObject(id: string): void;
}

export function runHandlers(parts: MachineParts, host: MachineHost): Record<string, Handler> {
  const { machine } = parts;
  return {
    'query-status': () => statusOf(machine),
    stop: () => machine.stop(),
    cont: () => machine.cont(),
    'query-name': () => (host.name === undefined ? {} : { name: host.name }),
    'query-uuid': () => ({ UUID: formatUuid(machine.ownUuid ?? '0'.repeat(32)) }),
    'query-memory-size-summary': () => ({ 'base-memory': memoryOf(machine), 'plugged-memory': 0 }),
    'human-monitor-command': humanMonitor(() => host.memory()),
    'query-cpus-fast': () => cpusOf(host.smp),
    pmemsave: ({ val, size, filename }) => host.saveMemory(toBigInt(val), toBigInt(size), String(filename)),
    'object-add': (given) => host.addObject(given),
    'object-del': ({ id }) => host.removeObject(String(id)),
    'announce-self': (given) => announce(machine, given),
    ...yankHandlers(parts, host),
    ...xenHandlers(machine, host),
    ...host.descriptors.handlers,
    ...openingHandlers(machine),
    ...libvirtHandlers(host),
  };
}

/** Times beyond what a number holds do not matter. */
function announce({ announcer }: Machine, { initial, max, rounds, step, interfaces, id }: JsonObject): void {
  announcer.announce({
    parameters: {
      ...{ 'announce-initial': Number(initial), 'announce-max': Number(max) },
      ...{ 'announce-rounds': Number(rounds), 'announce-step': Number(step) },
    },
    ...(interfaces === undefined ? {} : { interfaces: interfaces as string[] }),
    ...(id === undefined ? {} : { id: String(id) }),
  });
}

function statusOf({ state, isRunning, settings }: Machine) {
  const step = settings.schema.isUntil('7.2') ? { singlestep: false } : {};
  return { status: state, ...step, running: isRunning };
}

/** Of the largest block: what `-m` says, in bytes. */
const memoryOf = (machine: Machine) =>
  machine.hasGuest ? Math.max(0, ...machine.guest.ram.blocks.map(({ usedLength }) => usedLength)) : 0;

const toBigInt = (value: unknown): bigint => BigInt(value as number | bigint);

const cpusOf = (smp: number) =>
  Array.from({ length: smp }, (_, index) => ({
    ...{ 'cpu-index': index, 'qom-path': `/machine/unattached/device[${index}]`, 'thread-id': 0, target: 'x86_64' },
  }));

function yankHandlers({ migrate, incoming }: MachineParts, { chardevs }: MachineHost): Record<string, Handler> {
  const isMigrating = () => migrate.isUnderWay || (incoming?.isUnderWay ?? false);
  return {
    'query-yank': () => [
      ...chardevs().map((id) => ({ type: 'chardev', id })),
      ...(isMigrating() ? [{ type: 'migration' }] : []),
    ],
    yank({ instances }) {
      const wanted = instances as JsonObject[];
      const isThere = ({ type, id }: JsonObject) =>
        type === 'migration' ? isMigrating() : type === 'chardev' && chardevs().includes(String(id));
      if (!wanted.every(isThere)) throw new QmpError('Instance not found', 'DeviceNotFound');
      if (!wanted.some(({ type }) => type === 'migration')) return;
      migrate.break();
      incoming?.break();
    },
  };
}

/** The state of devices in a file. What loads it needs a Xen machine. */
function xenHandlers(machine: Machine, host: MachineHost): Record<string, Handler> {
  const isOld = machine.settings.schema.isUntil('7.2');
  return {
    async 'xen-save-devices-state'({ filename }) {
      await saveDeviceState(machine, () => host.createFile(String(filename), isOld));
    },
    'xen-load-devices-state'({ filename }) {
      if (machine.isRunning) throw new Error('Cannot update device state while vm is running');
      host.requireFile(String(filename), isOld);
      throw new Error('loading Xen device state failed');
    },
  };
}

/** The smallest answers with which libvirt starts a domain. */
function libvirtHandlers(host: MachineHost): Record<string, Handler> {
  const containers = ['', '/peripheral', '/peripheral-anon', '/unattached'].map((name) => `/machine${name}`);
  const cpus = () => cpusOf(host.smp).map((cpu) => cpu['qom-path']);
  return {
    'query-chardev': () =>
      [...host.chardevs()].reverse().map((label) => ({
        ...{ 'frontend-open': true, filename: `${host.chardevUri?.(label) ?? 'unix:'},server=on`, label },
      })),
    'query-iothreads': () => [],
    'qom-list'({ path }) {
      const isThere = ['/objects', ...containers, ...cpus()].includes(String(path));
      if (!isThere) throw new QmpError(`Device '${String(path)}' not found`, 'DeviceNotFound');
      return [{ name: 'type', type: 'string' }];
    },
  };
}

/** The smallest answers with which clients get through their opening. */
function openingHandlers(machine: Machine): Record<string, Handler> {
  return {
    'query-kvm': () => ({ enabled: false, present: false }),
    'query-target': () => ({ arch: 'x86_64' }),
    'query-machines': () => [
      {
        ...{ name: machine.hasGuest ? (machine.guest.configuration?.machine ?? 'none') : 'none', 'cpu-max': 1 },
        ...{ 'hotpluggable-cpus': false, 'numa-mem-supported': false, deprecated: false },
      },
    ],
    'query-command-line-options': () => [],
    'qom-list-types': () => [{ name: 'tcg-accel' }],
    'qom-list-properties': () => [],
    'device-list-properties': () => [],
  };
}
