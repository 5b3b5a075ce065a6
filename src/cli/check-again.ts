/** Reads a file again that was just written, before it gets its name. */
import { type MigrationFile, openFile } from '../file/open.ts';
import type { ByteSource } from '../io/byte-source.ts';
import { showProgress } from './progress.ts';

/** Runs a check on what was written. It is not closed by that. */
export async function openAgain(output: ByteSource, check: (copy: MigrationFile) => Promise<unknown>): Promise<void> {
  const source: ByteSource = {
    name: output.name,
    size: output.size,
    read: (target, position) => output.read(target, position),
    close: async () => {},
  };
  const copy = await openFile(source);
  const progress = showProgress('verify', copy);
  try {
    await check(copy);
  } finally {
    progress.stop();
    await copy.close();
  }
}
