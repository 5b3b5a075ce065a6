/** A saved VM whose RAM has guest-physical addresses: its content, its devices, and the layout that follows from them. */
import type { DeviceState } from '../../devices/device-state.ts';
import { placeIn } from '../../io/byte-source.ts';
import { ignoredFinding } from '../../read/finding-log.ts';
import type { MigrationFile } from '../../read/open.ts';
import { decodeDevices } from '../../store/devices.ts';
import { type OpenedVm, openSavedVm, type RamContentOptions } from '../../store/ram-content.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { type AcpiMemory, acpiTablesBlock, findAcpiMemory, maxAcpiBytes } from './acpi-memory.ts';
import { readConfigured } from './libvirt-memory.ts';
import { type LayoutOptions, layOutPhysical, type PhysicalLayout } from './physical-layout.ts';
import { readPart } from './range.ts';

/** How a file is laid out. */
export interface LaidOutOptions
  extends LayoutOptions,
    Pick<RamContentOptions, 'makeScratch' | 'endBlocks' | 'signal' | 'partial'> {}

/** The VM. Closing `vm.ram` closes its scratch file, not the file. */
export interface LaidOutVm {
  vm: OpenedVm;
  layout: PhysicalLayout;
  devices: DeviceState[];
  /** The blocks that the layout shows. */
  shown: RamBlock[];
}

/**
 * Reads a file to its end, and lays out its RAM.
 * @throws RangeError for a machine with an unknown layout, see {@link layOutPhysical}; MigrationError if the file is bad, or if
 *   memory that the layout shows is not in it
 */
export async function openLaidOutVm(file: MigrationFile, options: LaidOutOptions): Promise<LaidOutVm> {
  // Blocks that the guest does not see as memory are not needed.
  const vm = await openSavedVm(file, { ...options, devices: true, acceptIgnored: options.partial !== true });
  const { ram, configuration, ignored } = vm;
  try {
    const devices = decodeDevices(vm);
    const acpi = await readAcpi(ram);
    const image = file.containers.find((container) => container.kind === 'libvirt');
    const configured = image === undefined ? [] : readConfigured(image.data.xml);
    const facts = {
      ...{ machine: configuration?.machine, blocks: ram.blocks, devices, configured },
      ...(acpi === undefined ? {} : { acpi }),
    };
    const layout = layOutPhysical(facts, options);
    const shown = [...new Set(layout.ranges.map(({ block }) => block))];
    const left = options.partial === true ? undefined : shown.find((block) => ignored.includes(block));
    if (left !== undefined) throw MigrationError.from(ignoredFinding(placeIn(file.source, file.offset), left));
    return { vm, layout, devices, shown };
  } catch (error) {
    await ram.close();
    throw error;
  }
}

async function readAcpi(ram: RamReader): Promise<AcpiMemory | undefined> {
  const block = ram.blocks.find(({ idstr }) => idstr === acpiTablesBlock);
  if (block === undefined || block.usedLength > maxAcpiBytes) return undefined;
  const tables = new Uint8Array(block.usedLength);
  let at = 0;
  for await (const { length, bytes } of readPart(ram, block, 0, block.usedLength)) {
    if (bytes !== undefined) tables.set(bytes, at);
    at += length;
  }
  return findAcpiMemory(tables);
}
