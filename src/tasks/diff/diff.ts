/**
 * diff: compares two migrations of a VM, each in any form. It compares the VM: its RAM page by page, the state of its
 * devices field by field, and facts about the machine. It ignores how the migrations were sent.
 */

import { type DeviceDiff, diffDevice } from '../../devices/device-diff.ts';
import type { DeviceState } from '../../devices/device-state.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { decodeDevices } from '../../store/devices.ts';
import type { MissingRam } from '../../store/missing-ram.ts';
import { type OpenedVm, openSavedVm, type SavedVmOptions } from '../../store/ram-content.ts';
import type { Configuration } from '../../vm/flow.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { SectionQueues } from '../../vm/section-queues.ts';
import { type DiffRamOptions, diffRam, isSameRam, type RamDiff } from './diff-ram.ts';

/** A fact about the machine that differs. */
export interface FactDiff {
  what: 'machine' | 'uuid' | 'page-size' | 'capabilities';
  /** What each file states, if it states the fact. */
  old: string | undefined;
  new: string | undefined;
  /** Both files state it, and it is about the VM, not about how it was sent. */
  counts: boolean;
}

/** The differences in the devices. */
export interface DevicesDiff {
  /** In both, with the same state. */
  same: number;
  /** In both, with different states. */
  changed: DeviceDiff[];
  /** In only one of them. */
  removed: { name: string; instanceId: number }[];
  added: { name: string; instanceId: number }[];
}

/** The differences between two saved VMs. */
export interface VmDiff {
  /** Nothing that was compared differs. */
  same: boolean;
  facts: FactDiff[];
  /** RAM, if it was compared. */
  ram: RamDiff | undefined;
  /** Devices, if they were compared. */
  devices: DevicesDiff | undefined;
  /** Iterables other than RAM, such as dirty bitmaps, that one or both have. They are not compared. */
  notCompared: string[];
  /** With `partial`: what each file lacks. Undefined for a file that is complete. */
  missing: { old: MissingRam | undefined; new: MissingRam | undefined };
}

/** What is compared, and how much of the result is kept. */
export interface DiffOptions extends Pick<DiffRamOptions, 'maxRanges' | 'mapCells' | 'watch' | 'signal'> {
  /** Compare RAM. Default true. */
  ram?: boolean;
  /** Compare the devices' state. Default true. */
  devices?: boolean;
  /**
   * Accept files that are incomplete or damaged. Pages that one of them lacks are not compared, see {@link VmDiff}.
   * Default false.
   */
  partial?: boolean;
  /** The most differences that are kept for each device. Default 1,000. */
  maxChanges?: number;
}

/**
 * Compares two migrations, each read to its end.
 * @example
 * const { same, ram, devices } = await diff(before, after, { makeScratch: () => openScratch(tmpdir()) });
 *
 * @throws MigrationError if one is bad or lacks its RAM.
 */
export async function diff(
  old: MigrationFile,
  now: MigrationFile,
  options: DiffOptions & Pick<SavedVmOptions, 'makeScratch'>,
): Promise<VmDiff> {
  return whileAllowed(options, [old, now], () => diffFiles(old, now, options));
}

async function diffFiles(
  old: MigrationFile,
  now: MigrationFile,
  options: DiffOptions & Pick<SavedVmOptions, 'makeScratch'>,
): Promise<VmDiff> {
  const { makeScratch, partial = false } = options;
  const oldVm = await openSavedVm(old, { makeScratch, devices: true, partial });
  try {
    const newVm = await openSavedVm(now, { makeScratch, devices: true, partial });
    try {
      return await diffVms(oldVm, newVm, options);
    } finally {
      await newVm.ram.close();
    }
  } finally {
    await oldVm.ram.close();
  }
}

/** A VM to compare, perhaps from a partial file. */
export type DiffedVm = SavedVm & Partial<Pick<OpenedVm, 'missing'>>;

/** Compares two VMs whose devices were kept. */
export async function diffVms(old: DiffedVm, now: DiffedVm, options: DiffOptions = {}): Promise<VmDiff> {
  const facts = diffFacts(old, now);
  const missing = { old: old.missing, new: now.missing };
  const ignored = { oldIgnored: old.ignored, newIgnored: now.ignored, missing };
  const ram = options.ram === false ? undefined : await diffRam(old.ram, now.ram, { ...options, ...ignored });
  const devices =
    options.devices === false
      ? undefined
      : diffDevices(decodeDevices(old), decodeDevices(now), options.maxChanges ?? 1000);
  const iterables = [...old.iterables, ...now.iterables].map(({ name }) => name);
  return {
    same:
      !facts.some(({ counts }) => counts) &&
      (ram === undefined || isSameRam(ram)) &&
      (devices === undefined || devices.changed.length + devices.removed.length + devices.added.length === 0),
    facts,
    ram,
    devices,
    notCompared: [...new Set(iterables)],
    missing,
  };
}

/**
 * Compares the devices of two VMs, matched by name and instance id. Devices with the same identity are matched in
 * order.
 */
export function diffDevices(
  olds: readonly DeviceState[],
  news: readonly DeviceState[],
  maxChanges: number,
): DevicesDiff {
  const left = new SectionQueues(olds);
  const found: DevicesDiff = { same: 0, changed: [], removed: [], added: [] };
  const named = ({ name, instanceId }: DeviceState) => ({ name, instanceId });
  for (const device of news) {
    const old = left.take(device);
    if (old === undefined) {
      found.added.push(named(device));
      continue;
    }
    const difference = diffDevice(old, device, maxChanges);
    if (difference.changeCount === 0) found.same++;
    else found.changed.push(difference);
  }
  found.removed = left.rest().map(named);
  return found;
}

function diffFacts(old: SavedVm, now: SavedVm): FactDiff[] {
  const say = ({ configuration, ram }: SavedVm): Record<FactDiff['what'], string | undefined> => ({
    machine: configuration?.machine,
    uuid: configuration?.uuid,
    'page-size': ram.blocks[0]?.pageSize.toString(),
    capabilities: listCapabilities(configuration),
  });
  const [before, after] = [say(old), say(now)];
  return (['machine', 'uuid', 'page-size', 'capabilities'] as const)
    .filter((what) => before[what] !== after[what])
    .map((what) => {
      const isSaid = before[what] !== undefined && after[what] !== undefined;
      return { what, old: before[what], new: after[what], counts: isSaid && what !== 'capabilities' };
    });
}

const listCapabilities = (configuration: Configuration | undefined) =>
  configuration === undefined ? undefined : [...configuration.capabilities].sort().join(', ');
