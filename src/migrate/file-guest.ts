/**
 * The VM in a file, for whoever sends it. The file is read and checked before anything is connected: a stream to its end, and a
 * mapped-ram file except for its pages, which are read when they are sent.
 */
import type { Abortable } from '../io/abort.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import { type ReleaseName, type ReleaseRules, releaseRulesOf } from '../schema/release-rules.ts';
import { readIterables } from '../store/iterables.ts';
import { type OpenedVm, openSavedVm, type SavedVmOptions } from '../store/ram-content.ts';
import type { RawSection } from '../vm/saved-vm.ts';

/** How a file is opened to send what is in it. */
export interface FileGuestOptions extends Abortable, Pick<SavedVmOptions, 'makeScratch' | 'notePlan'> {
  /** The version of QEMU at the destination. Default: by the machine type, and the file. */
  compat?: ReleaseName | undefined;
  /** Called when the file is checked, before anything is connected. It may throw. */
  checked?: (vm: OpenedVm) => void | Promise<void>;
}

/** What a file says besides its VM. */
export interface FileGuestFacts {
  rules?: ReleaseRules;
  iterables: RawSection[];
}

/**
 * Opens the VM in a file for a while.
 * @throws MigrationError for a bad file; RangeError for a version of QEMU that does not have the machine type; what `send` throws
 */
export function withFileGuest<Result>(
  file: MigrationFile,
  options: FileGuestOptions,
  send: (vm: OpenedVm, facts: FileGuestFacts) => Promise<Result>,
): Promise<Result> {
  const { makeScratch, notePlan, compat, checked } = options;
  return whileAllowed(options, [file], async () => {
    const note = notePlan === undefined ? {} : { notePlan };
    const vm = await openSavedVm(file, { makeScratch, devices: true, whole: true, ...note });
    try {
      const rules = compat === undefined ? {} : { rules: releaseRulesOf(vm.configuration?.machine, compat) };
      const iterables = await readIterables(file, vm.iterables);
      await checked?.(vm);
      return await send(vm, { ...rules, iterables });
    } finally {
      await vm.ram.close();
    }
  });
}
