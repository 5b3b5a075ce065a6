/**
 * snapshot-save, snapshot-load and snapshot-delete as jobs:
 *
 *     save     checks ─→ stop (save-vm) ─→ VM state, snapshots of all disks ─→ back to what it did
 *     load     stop (restore-vm) ─→ checks ─→ all disks reverted ─→ VM state loaded ─→ back to what it did
 *     delete   checks ─→ from each disk that has it
 *
 * A load that fails leaves the guest stopped, as in QEMU. The texts of errors are QEMU's.
 */

import type { ByteSink, ByteSource } from '../../io/byte-source.ts';
import type { BlockNode, BlockNodes } from '../../migrate/block-node.ts';
import type { Handler } from '../server.ts';
import type { Jobs } from './jobs.ts';

/** The VM whose state is saved and loaded. Messages of its errors become those of the job. */
export interface SnapshotVm {
  readonly nodes: BlockNodes;
  /** Why its state cannot be saved now, such as a migration that runs. */
  refusal(): string | undefined;
  /** Whether its disks are another VM's: before it has arrived, and after it has left. */
  readonly areDisksInactive: boolean;
  /** Stops the guest in that runstate, and emits STOP, if it runs. */
  stop(state: 'save-vm' | 'restore-vm'): Promise<void>;
  /** Lets it run again if it ran before: RESUME. */
  restore(): void;
  /** Writes a stream of the stopped guest. */
  save(sink: ByteSink): Promise<void>;
  /** Replaces the guest by that of a stream. */
  load(source: ByteSource): Promise<void>;
  /** The guest's clock, in nanoseconds. */
  vmClock(): bigint;
  /** The host's clock, in ms since 1970. */
  now(): number;
}

/** The commands that make these jobs. */
export function snapshotHandlers(vm: SnapshotVm, jobs: Jobs): Record<string, Handler> {
  const names = (devices: unknown) => (devices as unknown[]).map(String);
  return {
    'snapshot-save': ({ 'job-id': id, tag, vmstate, devices }) =>
      jobs.start('snapshot-save', String(id), (signal) =>
        saveSnapshot(vm, { tag: String(tag), vmstate: String(vmstate), devices: names(devices), signal }),
      ),
    'snapshot-load': ({ 'job-id': id, tag, vmstate, devices }) =>
      jobs.start('snapshot-load', String(id), () =>
        loadSnapshot(vm, { tag: String(tag), vmstate: String(vmstate), devices: names(devices) }),
      ),
    'snapshot-delete': ({ 'job-id': id, tag, devices }) =>
      jobs.start('snapshot-delete', String(id), async () => {
        for (const { image } of snapshotNodes(vm, names(devices))) {
          const found = image.find(String(tag));
          if (found !== undefined) await image.delete(found);
        }
      }),
  };
}

interface SnapshotArguments {
  tag: string;
  /** The device that has the VM state. */
  vmstate: string;
  devices: readonly string[];
}

/** A disk that can have snapshots. */
type SnapshotNode = BlockNode & { readonly image: NonNullable<BlockNode['image']> };

/** The disks with these names. Like QEMU, a disk that is named twice gets two snapshots. */
function snapshotNodes({ nodes, areDisksInactive }: SnapshotVm, devices: readonly string[]): SnapshotNode[] {
  if (devices.length === 0) throw new Error('At least one device is required for snapshot');
  const found = devices.map((device) => {
    const node = nodes.get(device);
    if (node === undefined) throw new Error(`No block device node '${device}'`);
    return node;
  });
  for (const { id, image } of found) {
    if (image === undefined || areDisksInactive)
      throw new Error(`Device '${id}' is writable but does not support snapshots`);
  }
  return found as SnapshotNode[];
}

function vmstateNode(nodes: readonly SnapshotNode[], vmstate: string): SnapshotNode {
  const node = nodes.find(({ id }) => id === vmstate);
  if (node === undefined) throw new Error(`vmstate block device '${vmstate}' does not exist`);
  return node;
}

async function saveSnapshot(
  vm: SnapshotVm,
  { tag, vmstate, devices, signal }: SnapshotArguments & { signal: AbortSignal },
): Promise<void> {
  const nodes = snapshotNodes(vm, devices);
  if (nodes.some(({ image }) => image.find(tag) !== undefined)) {
    throw new Error(`Snapshot '${tag}' already exists in one or more devices`);
  }
  const first = vmstateNode(nodes, vmstate);
  await vm.stop('save-vm');
  try {
    const refusal = vm.refusal();
    if (refusal !== undefined) throw new Error(refusal);
    // QEMU's date has microseconds.
    const microseconds = Math.floor(vm.now() * 1000);
    const made = {
      ...{ name: tag, vmClock: vm.vmClock(), dateSeconds: Math.floor(microseconds / 1_000_000) },
      dateNanoseconds: (microseconds % 1_000_000) * 1000,
    };
    const ready: SnapshotNode[] = [];
    try {
      await first.image.save(made, (sink) => writeState(vm, sink, signal));
      ready.push(first);
      const others = [...nodes];
      others.splice(nodes.indexOf(first), 1);
      const again = first.image.find(tag);
      for (const node of others) {
        const state = node === first && again !== undefined ? first.image.vmState(again) : undefined;
        await creating(tag, node, () => node.image.save(made, state && ((sink) => copyAll(state, sink))));
        ready.push(node);
      }
    } catch (error) {
      for (const { image } of ready) {
        const snapshot = image.find(tag);
        if (snapshot !== undefined) await image.delete(snapshot);
      }
      throw error;
    }
  } finally {
    vm.restore();
  }
}

async function writeState(vm: SnapshotVm, sink: ByteSink, signal: AbortSignal): Promise<void> {
  try {
    await vm.save({
      write(bytes) {
        signal.throwIfAborted();
        return sink.write(bytes);
      },
    });
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(`Error while writing VM state: ${(error as Error).message}`);
  }
}

async function copyAll(source: ByteSource, sink: ByteSink): Promise<void> {
  const buffer = new Uint8Array(1 << 20);
  for (let at = 0, count = 1; count > 0; at += count) {
    count = await source.read(buffer, at);
    await sink.write(buffer.subarray(0, count));
  }
}

async function creating(tag: string, { id }: BlockNode, create: () => Promise<unknown>): Promise<void> {
  try {
    await create();
  } catch (error) {
    throw new Error(`Could not create snapshot '${tag}' on '${id}': ${(error as Error).message}`);
  }
}

async function loadSnapshot(vm: SnapshotVm, { tag, vmstate, devices }: SnapshotArguments): Promise<void> {
  await vm.stop('restore-vm');
  const nodes = snapshotNodes(vm, devices);
  const snapshots = nodes.map((node) => ({ node, snapshot: node.image.find(tag) }));
  if (snapshots.some(({ snapshot }) => snapshot === undefined)) {
    throw new Error(`Snapshot '${tag}' does not exist in one or more devices`);
  }
  const { image } = vmstateNode(nodes, vmstate);
  const own = image.find(tag);
  if (own === undefined || own.vmStateSize === 0) {
    throw new Error('This is a disk-only snapshot. Revert to it  offline using qemu-img');
  }
  for (const { node, snapshot } of snapshots) {
    if (snapshot === undefined) continue;
    try {
      if (node.bitmaps.length > 0 || node.image.hasBitmaps) throw new Error('Device has active dirty bitmaps');
      await node.image.load(snapshot);
    } catch (error) {
      throw new Error(`Could not load snapshot '${tag}' on '${node.id}': ${(error as Error).message}`);
    }
  }
  const state = image.vmState(own);
  if (state !== undefined) await vm.load(state);
  vm.restore();
}
