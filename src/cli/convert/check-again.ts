/** Reads back what `vmferry convert` wrote, before the output gets its name. */
import type { ByteSource, ByteStore } from '../../io/byte-source.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { nodeDecompress } from '../../io/node/decompress.ts';
import { type MigrationFile, openFile } from '../../read/open.ts';
import { showProgress } from '../progress.ts';

/**
 * Compares a conversion with its output, from an offset on, and with its channels. Meanwhile these are synced to the
 * disk. They stay open.
 */
export async function checkAgain(
  conversion: { check(copy: MigrationFile): Promise<unknown> },
  output: ByteStore,
  { offset = 0, channels = [] }: { offset?: number; channels?: readonly ByteStore[] } = {},
): Promise<void> {
  const syncing = Promise.all([output, ...channels].map((store) => store.sync()));
  // Awaited at the end, whatever happens before.
  syncing.catch(() => {});
  const copy = await openFile(keepOpen(output), {
    ...{ offset, channels: channels.map(keepOpen) },
    ...{ codecs: new NodeCodecs(), decompress: nodeDecompress },
  });
  const progress = showProgress('verify', copy);
  try {
    await conversion.check(copy);
  } finally {
    progress.stop();
    await copy.close();
    await syncing;
  }
}

const keepOpen = (output: ByteSource): ByteSource => ({
  name: output.name,
  size: output.size,
  read: (target, position) => output.read(target, position),
  close: async () => {},
});
