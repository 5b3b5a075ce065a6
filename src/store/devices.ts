/** The state of all devices of a file, each decoded by its description. */

import { type DeviceState, decodeDevice } from '../devices/device-state.ts';
import type { Abortable } from '../io/abort.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import type { VmDescription } from '../vm/description.ts';
import type { Configuration, DeviceSection, FlowItem } from '../vm/flow.ts';
import type { Finding } from '../vm/migration-error.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { SectionQueues } from '../vm/section-queues.ts';
import { type FlowSink, readFlow } from './flow-sink.ts';
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
  const collector = new DeviceCollector(file);
  const error = await readFlow(file, [collector], { read: 'bitmaps' });
  return collector.finish(error);
}

/** Collects the device sections of a Flow. */
export class DeviceCollector implements FlowSink {
  readonly #file: MigrationFile;
  readonly #sections: DeviceSection[] = [];
  readonly #read: ReadDevices = {
    devices: [],
    description: undefined,
    configuration: undefined,
    errors: [],
    error: undefined,
  };
  #bytes = 0;

  constructor(file: MigrationFile) {
    this.#file = file;
  }

  /** @throws MigrationError `limit-exceeded` for too much device state */
  take(item: FlowItem): void {
    if (item.kind === 'configuration') this.#read.configuration = item.configuration;
    else if (item.kind === 'description') this.#read.description = item.description.parsed;
    else if (item.kind === 'finding' && item.finding.severity === 'error') this.#read.errors.push(item.finding);
    if (item.kind !== 'device' || item.device.omitted !== undefined) return;
    this.#bytes = countDeviceBytes(this.#file, item.device, this.#bytes, maxBytes);
    this.#sections.push(item.device);
  }

  /** Decodes the devices. `error` is what ended the Flow early, if anything did. */
  finish(error: Finding | undefined): ReadDevices {
    return { ...this.#read, devices: decodeAll(this.#sections, this.#read.description), error };
  }
}

/** Decodes the devices of a SavedVm that was made with `devices: true`. */
export function decodeDevices(vm: Pick<SavedVm, 'devices' | 'description'>): DeviceState[] {
  return decodeAll(vm.devices, vm.description?.parsed);
}

function decodeAll(sections: readonly DeviceSection[], description: VmDescription | undefined): DeviceState[] {
  const described = new SectionQueues(description?.devices ?? []);
  return sections.map((section) => decodeDevice(section, described.take(section)));
}
