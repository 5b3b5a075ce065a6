/**
 * Sends the VM in a file. The file is read and checked before anything is connected, so a file that is cut short or damaged
 * does not disturb the destination. If it turns out to be bad later, the lines break before the end of the stream, and
 * the destination does not complete.
 */
import type { Connection } from '../io/connection.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import { type ReleaseName, releaseRulesOf } from '../schema/release-rules.ts';
import { readIterables } from '../store/iterables.ts';
import { type OpenedVm, openSavedVm, type SavedVmOptions } from '../store/ram-content.ts';
import { stoppedGuest } from '../vm/guest.ts';
import type { SendOptions, SentGuest } from './send-options.ts';
import { send } from './source.ts';

/** How the VM in a file is sent. */
export interface SendFileOptions
  extends Omit<SendOptions, 'iterables' | 'rules'>,
    Pick<SavedVmOptions, 'makeScratch' | 'notePlan'> {
  /** The version of QEMU at the destination. Default: by the machine type, and the file. */
  compat?: ReleaseName | undefined;
  /** Called when the file is checked, before anything is connected. It may throw. */
  checked?: (vm: OpenedVm) => void;
}

/**
 * Sends the VM in a file, as a stopped guest. It runs at the destination if it ran when it was saved.
 * `connect` is called once for the main line, then once per multifd channel.
 *
 * @example
 * const file = await open('guest.migration');
 * const { isConfirmed } = await sendFile(file, () => connectTo(address), { makeScratch });
 *
 * @throws MigrationError, before anything is connected, for a bad file; RangeError for a version of QEMU that does not have
 *   the machine type; the errors of `connect` for the main line; otherwise as `send`
 */
export async function sendFile(
  file: MigrationFile,
  connect: () => Promise<Connection>,
  options: SendFileOptions,
): Promise<SentGuest> {
  return whileAllowed(options, [file], () => sendVm(file, connect, options));
}

async function sendVm(
  file: MigrationFile,
  connect: () => Promise<Connection>,
  { makeScratch, notePlan, compat, checked, multifd, ...options }: SendFileOptions,
): Promise<SentGuest> {
  const note = notePlan === undefined ? {} : { notePlan };
  const vm = await openSavedVm(file, { makeScratch, devices: true, whole: true, ...note });
  try {
    const rules = compat === undefined ? {} : { rules: releaseRulesOf(vm.configuration?.machine, compat) };
    const iterables = await readIterables(file, vm.iterables);
    checked?.(vm);
    const uuid = multifd?.uuid ?? vm.configuration?.uuid ?? file.channels.uuid;
    const channels = multifd === undefined ? {} : { multifd: { ...multifd, ...(uuid === undefined ? {} : { uuid }) } };
    const lines = { main: await connect(), openChannel: connect };
    return await send(stoppedGuest(vm), lines, { ...options, ...rules, ...channels, iterables });
  } finally {
    await vm.ram.close();
  }
}
