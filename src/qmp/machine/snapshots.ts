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
  const vm = {
    nodes,
    refusal: () => (migrate.isUnderWay ? "There's a migration process in progress" : undefined),
    async stop(state: 'save-vm' | 'restore-vm') {
      const wasRunning = machine.isRunning;
      await machine.hold(state);
      return wasRunning;
    },
    restore: () => machine.release(),
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
