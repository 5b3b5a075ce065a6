/** Snapshots of a machine: what the jobs of `qmp/block` ask of it. */
import type { ByteSource } from '../../io/byte-source.ts';
import type { BlockNodes } from '../../migrate/block-node.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import { blockHandlers } from '../block/block-handlers.ts';
import { Jobs } from '../block/jobs.ts';
import { snapshotHandlers } from '../block/snapshot-jobs.ts';
import type { Handler } from '../server.ts';
import type { MachineParts } from './migration-handlers.ts';

/** What the process around a machine brings for its disks. */
export interface SnapshotHost {
  nodes: BlockNodes;
  /** Copies the guest in the stream of a snapshot. @throws MigrationError if it is bad */
  loadState(source: ByteSource): Promise<MachineGuest>;
  /** ms since 1970. */
  now(): number;
}

/** Jobs, snapshots and disks. */
export function diskHandlers(
  { machine, migrate }: MachineParts,
  { nodes, loadState, now }: SnapshotHost,
): { jobs: Jobs; handlers: Record<string, Handler> } {
  const jobs = new Jobs((event, data) => machine.emit(event, data));
  const started = machine.clock.now();
  let wasRunning = false;
  const vm = {
    nodes,
    refusal: () => (migrate.isUnderWay ? "There's a migration process in progress" : undefined),
    get areDisksInactive() {
      return machine.state === 'inmigrate' || machine.state === 'postmigrate';
    },
    async stop(state: 'save-vm' | 'restore-vm') {
      wasRunning = machine.isRunning;
      // A snapshot that fails to load leaves it like this.
      if (state === 'restore-vm') await machine.halt(state);
      else await machine.holdRunning(state);
    },
    restore() {
      if (wasRunning) machine.run();
    },
    save: migrate.saveState.bind(migrate),
    load: async (source: ByteSource) => machine.replace(await loadState(source)),
    // Time passes for the guest from its start on.
    vmClock: () => BigInt(Math.round((machine.clock.now() - started) * 1e6)),
    now,
  };
  const handlers = {
    ...jobs.handlers,
    ...snapshotHandlers(vm, jobs),
    ...blockHandlers(nodes, machine.settings.schema),
  };
  return { jobs, handlers };
}
