/**
 * Sends the VM in a file. The file is read and checked before anything is connected, so a file that is cut short or damaged
 * does not disturb the destination. If it turns out to be bad later, the lines break before the end of the stream, and
 * the destination does not complete.
 */
import type { Connection } from '../io/connection.ts';
import type { MigrationFile } from '../read/open.ts';
import { stoppedGuest } from '../vm/guest.ts';
import { type FileGuestOptions, withFileGuest } from './file-guest.ts';
import type { SendOptions, SentGuest } from './send-options.ts';
import { send } from './source.ts';

/** How the VM in a file is sent. */
export interface SendFileOptions extends Omit<SendOptions, 'iterables' | 'rules'>, FileGuestOptions {}

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
  return withFileGuest(file, options, async (vm, facts) => {
    const { multifd } = options;
    const uuid = multifd?.uuid ?? vm.configuration?.uuid ?? file.channels.uuid;
    const channels = multifd === undefined ? {} : { multifd: { ...multifd, ...(uuid === undefined ? {} : { uuid }) } };
    const lines = { main: await connect(), openChannel: connect };
    return send(stoppedGuest(vm), lines, { ...options, ...facts, ...channels });
  });
}
