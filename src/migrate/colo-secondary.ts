/**
 * The secondary side of COLO: its guest runs, too, and becomes what the primary's is at each checkpoint (colo-line.ts).
 *
 *     ready ──→ running ── request ──→ stopped ── pages to a cache, devices ──→ all of it at once ──→ running ...
 *                   └── the line breaks ──→ COLO_EXIT error; the guest stays as it is until somebody says so
 *                   └── x-colo-lost-heartbeat ──→ the end: this guest takes over
 *
 * What the cache has is not the guest's before it is complete, so a line that breaks within a checkpoint costs nothing.
 */
import type { Connection } from '../io/connection.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedDevices } from '../vm/saved-vm.ts';
import { ColoMessage, ColoReader, coloMessage, type ReadLine } from './colo-line.ts';

/** RAM and devices that become the guest's at once. */
export interface CheckpointCache {
  readonly blocks: readonly RamBlock[];
  readonly devices: SavedDevices;
  /** Takes a page of the next checkpoint. */
  write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> | void;
  /** Makes the guest what was taken, whatever it has written itself. It is stopped. */
  apply(devices: SavedDevices): Promise<void>;
}

/** What COLO asks of the VM at the secondary side. */
export interface ColoSecondaryHost {
  cache: CheckpointCache;
  stop(): Promise<void>;
  run(): void;
  /** The line broke. */
  onError(error: unknown): void;
  /** Resolves when this side takes over, or the process ends. */
  ended: Promise<void>;
}

/** Takes checkpoints until this side takes over. */
export async function runSecondary(line: Connection, read: ReadLine, host: ColoSecondaryHost): Promise<void> {
  let isOver = false;
  void takeCheckpoints(line, read, host, () => isOver).catch((error) => {
    if (!isOver) host.onError(error);
  });
  await host.ended;
  isOver = true;
  line.destroy();
}

async function takeCheckpoints(
  line: Connection,
  read: ReadLine,
  { cache, stop, run }: ColoSecondaryHost,
  isOver: () => boolean,
): Promise<void> {
  const reader = new ColoReader(read);
  const say = (message: number) => line.write(coloMessage(message));
  await say(ColoMessage.checkpointReady);
  for (;;) {
    await reader.expect(ColoMessage.checkpointRequest);
    if (isOver()) return;
    await stop();
    await say(ColoMessage.checkpointReply);
    await reader.expect(ColoMessage.vmstateSend);
    await reader.pages(cache.blocks, (block, page, bytes) => cache.write(block, page, bytes));
    const devices = await reader.devices(cache.devices);
    await say(ColoMessage.vmstateReceived);
    if (isOver()) return;
    await cache.apply(devices);
    await say(ColoMessage.vmstateLoaded);
    if (!isOver()) run();
  }
}
