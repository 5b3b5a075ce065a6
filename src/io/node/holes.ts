/** Where a file has data, and where holes, as far as this host can tell. */
import type { ByteSource } from '../byte-source.ts';
import { loadDescriptorCalls } from './descriptor-calls.ts';
import { NodeFile } from './file.ts';

/**
 * A function that finds the first byte of a file from a position on that may be other than a hole. Undefined if this host
 * cannot tell: then all of the file may be data.
 */
export async function dataFinder(source: ByteSource): Promise<((position: number) => number) | undefined> {
  if (!(source instanceof NodeFile)) return undefined;
  const { fd } = source;
  const calls = await loadDescriptorCalls();
  return calls === undefined ? undefined : (position) => calls.nextData(fd, position);
}
