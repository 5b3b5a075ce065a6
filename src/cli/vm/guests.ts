/** The guests of `vmferry vm`: a synthetic one, one from a file, and one that arrived. */
import { fstatSync } from 'node:fs';
import { type GuestBlockSize, GuestRam } from '../../guest/guest-ram.ts';
import { ImageRam } from '../../guest/image-ram.ts';
import { SyntheticGuest } from '../../guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../guest/workload.ts';
import { MemoryFile } from '../../io/memory-file.ts';
import type { FileAddress } from '../../io/migration-address.ts';
import { NodeFile, openSource } from '../../io/node/file.ts';
import { openScratch } from '../../io/node/output-file.ts';
import { onlyGlobalState } from '../../migrate/global-state.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import { open } from '../../node.ts';
import type { MigrationFile } from '../../read/open.ts';
import { readIterables } from '../../store/iterables.ts';
import { openSavedVm } from '../../store/ram-content.ts';
import { writeMappedRam } from '../../write/write-mapped-ram.ts';

/** RAM up to this size is kept in memory. */
const inMemoryBytes = 256 << 20;

/** What a synthetic guest is made of. */
export interface SyntheticOptions {
  machine: 'none' | 'pc';
  memory: number;
  ram?: string | undefined;
  workload?: WorkloadOptions | undefined;
  smp: number;
  isPaused: boolean;
  scratch: string;
}

export async function makeSynthetic(options: SyntheticOptions): Promise<MachineGuest> {
  const { machine, memory, ram: image, workload, smp, isPaused, scratch } = options;
  const makeScratch = () => openScratch(scratch);
  const store = memory <= inMemoryBytes ? new MemoryFile() : makeScratch();
  const block = { idstr: machine === 'pc' ? 'pc.ram' : 'ram', size: memory };
  const ram = new GuestRam(store, await openRam(block, image));
  return new SyntheticGuest({
    ...{ ram, isPaused, workload: workload === undefined ? undefined : { ...workload, vcpus: smp } },
    frozen: { makeScratch },
    configuration: { machine, capabilities: [] },
    devices: onlyGlobalState(),
  });
}

/** RAM whose content is read from a file when it is needed, or is zero. */
async function openRam(block: GuestBlockSize, path: string | undefined): Promise<ImageRam> {
  const image = path === undefined ? undefined : await openSource(path);
  try {
    return new ImageRam([{ ...block, image }]);
  } catch (error) {
    await image?.close();
    throw error;
  }
}

/** How a VM from a file is run. */
export interface FileGuestOptions {
  workload?: WorkloadOptions | undefined;
  smp: number;
  /** The directory of scratch files. */
  scratch: string;
}

/** The VM in a file, stopped. Closing the guest closes the file. @throws MigrationError if it is bad */
export async function openGuest(file: MigrationFile, options: FileGuestOptions): Promise<MachineGuest> {
  const { workload, smp, scratch } = options;
  try {
    const makeScratch = () => openScratch(scratch);
    const vm = await openSavedVm(file, { makeScratch, devices: true, whole: true });
    return new SyntheticGuest({
      ram: new GuestRam(workload === undefined ? new MemoryFile() : makeScratch(), vm.ram),
      workload: workload === undefined ? undefined : { ...workload, vcpus: smp },
      configuration: vm.configuration ?? 'absent',
      devices: { devices: vm.devices, description: vm.description },
      ...{ ignored: vm.ignored, framing: vm.framing, iterables: await readIterables(file, vm.iterables) },
      ...{ release: () => file.close(), isPaused: true, frozen: { makeScratch } },
    });
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The VM in a file of an address, stopped, see {@link copyOpened}. */
export async function copyGuest(
  { filename, offset, fd }: FileAddress,
  options: FileGuestOptions,
): Promise<MachineGuest> {
  if (fd !== undefined) {
    const file = new NodeFile(fd, filename, fstatSync(fd).size);
    return copyOpened(await open(file, { offset }), options);
  }
  return copyOpened(await open(offset === 0 ? filename : `${filename},offset=${offset}`), options);
}

/**
 * The VM in a file, stopped, with a copy of its RAM, which nobody else writes. Closes the file.
 * @throws MigrationError if the file is bad
 */
export async function copyOpened(file: MigrationFile, options: FileGuestOptions): Promise<MachineGuest> {
  const makeScratch = () => openScratch(options.scratch);
  const copy = makeScratch();
  try {
    const vm = await openSavedVm(file, { makeScratch, devices: true, whole: true });
    await writeMappedRam(vm, copy);
    await vm.ram.close();
  } catch (error) {
    await copy.close();
    throw error;
  } finally {
    await file.close();
  }
  return openGuest(await open(copy), options);
}
