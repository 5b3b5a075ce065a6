/**
 * Receives a live migration (destination.ts has the drawing), or goes on with one that broke off in postcopy after its
 * destination has ended:
 *
 *     receive    source ──→ Destination ──→ file
 *     recover    record in the file ──→ Destination, whose source has broken off at once ──→ the source that comes again
 */
import type { Connection } from '../io/connection.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { LiveFlow, liveFlowArenaBytes } from '../read/live-flow.ts';
import type { RecoveryRecord } from '../store/recovery-record.ts';
import { Destination } from './destination.ts';
import { guestFileArenaBytes } from './guest-file.ts';
import { Incoming } from './incoming.ts';
import { LiveError, nextUnread } from './live-error.ts';
import type { Received, ReceiveOptions, ReceiveTarget, Recovery } from './receive-options.ts';
import { replayOpening } from './recovery-opening.ts';

/**
 * Receives one migration. Closes all connections, and leaves the listener to the caller.
 * @throws LiveError: its `cause` is a MigrationError for an invalid stream, a PeerError if the source failed, the reason
 *   of `signal`, or what `target` threw
 */
export async function receive(incoming: Incoming, target: ReceiveTarget, options: ReceiveOptions): Promise<Received> {
  return receiveOver(incoming, target, options);
}

/**
 * Goes on with a migration that broke off in postcopy, after its destination has ended: `target.file` is the file that it
 * kept, and `record` what stands in it. The source comes over the lines of `recovery.onBreak`, which is called at once.
 * @throws LiveError like {@link receive}
 */
export function recover(
  record: RecoveryRecord,
  target: ReceiveTarget,
  options: ReceiveOptions & { recovery: Recovery },
): Promise<Received> {
  return receiveOver(new Incoming(replayOpening(record.opening)), target, options, record);
}

async function receiveOver(
  incoming: Incoming,
  target: ReceiveTarget,
  options: ReceiveOptions,
  record?: RecoveryRecord,
): Promise<Received> {
  const { signal } = options;
  let main: Connection;
  // While the source is awaited.
  const loading = loadKernelFor([liveFlowArenaBytes(options.mostChannels), guestFileArenaBytes]);
  loading.catch(() => {});
  try {
    main = await incoming.main(signal);
  } catch (error) {
    if (await incoming.mayHaveBegun()) throw new LiveError('either', nextUnread, error);
    throw new LiveError('source', 'nothing was received, so the guest can run on at the source', error);
  }
  const kernel = await loading;
  const flow = new LiveFlow(kernel, {
    codecs: options.codecs,
    ...(options.mostChannels === undefined ? {} : { mostChannels: options.mostChannels }),
    ...(options.compression === undefined ? {} : { compression: options.compression }),
    channelsKnown: () => incoming.settled(),
    anotherChannel: (isCertain) => incoming.another(isCertain),
  });
  return new Destination(incoming, main, flow, target, options, record).run();
}
