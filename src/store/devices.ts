/** The state of all devices of a file, each decoded by its description. */

import { type DeviceState, decodeDevice } from '../devices/device-state.ts';
import type { Abortable } from '../io/abort.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import type { VmDescription } from '../vm/description.ts';
import type { Configuration, DeviceSection } from '../vm/flow.ts';
import { type Finding, MigrationError } from '../vm/migration-error.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { SectionQueues } from '../vm/section-queues.ts';
import { countDeviceBytes } from './settle.ts';

/** The devices of a file. */
export interface ReadDevices {
  /** In stream order. */
  devices: DeviceState[];
  /** Undefined: the file has no description, or one that is not JSON. */
  description: VmDescription | undefined;
  configuration: Configuration | undefined;
  /** Findings of severity `error` that the reader could read past. */
  errors: Finding[];
  /** The error that stopped the reading, if any. `devices` are those before it. */
  error: Finding | undefined;
}

/** The most bytes of bodies that are kept. Their decoded state takes further memory. */
const maxBytes = 64 << 20;

/**
 * Reads the device sections of a file: everything except the pages, which are not read at all in a mapped-ram file. A
 * truncated file gives the devices before its end, without the sizes from the description.
 */
export async function readDevices(file: MigrationFile, options: Abortable = {}): Promise<ReadDevices> {
  return whileAllowed(options, [file], () => readSections(file));
}

async function readSections(file: MigrationFile): Promise<ReadDevices> {
  const sections: DeviceSection[] = [];
  const read: ReadDevices = {
    devices: [],
    description: undefined,
    configuration: undefined,
    errors: [],
    error: undefined,
  };
  let bytes = 0;
  try {
    for await (const item of file.flow({ read: 'bitmaps' })) {
      if (item.kind === 'configuration') read.configuration = item.configuration;
      else if (item.kind === 'description') read.description = item.description.parsed;
      else if (item.kind === 'finding' && item.finding.severity === 'error') read.errors.push(item.finding);
      if (item.kind !== 'device') continue;
      bytes = countDeviceBytes(file, item.device, bytes, maxBytes);
      sections.push(item.device);
    }
  } catch (caught) {
    if (!(caught instanceof MigrationError)) throw caught;
    read.error = caught.toFinding();
  }
  read.devices = decodeAll(sections, read.description);
  return read;
}

/** Decodes the devices of a SavedVm that was made with `devices: true`. */
export function decodeDevices(vm: Pick<SavedVm, 'devices' | 'description'>): DeviceState[] {
  return decodeAll(vm.devices, vm.description?.parsed);
}

function decodeAll(sections: readonly DeviceSection[], description: VmDescription | undefined): DeviceState[] {
  const described = new SectionQueues(description?.devices ?? []);
  return sections.map((section) => decodeDevice(section, described.take(section)));
}
