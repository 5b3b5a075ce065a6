/**
 * vmferry in Node: everything of `index.ts`, and files, pipes and standard input by their paths.
 */

import { type MigrationFile, mapParts, type OpenOptions } from './file/open.ts';
import { type Openable, open as openAnywhere } from './index.ts';
import type { ByteSource } from './io/byte-source.ts';
import { openSource } from './io/node/file.ts';

export * from './index.ts';
export { NodeFile, openSource } from './io/node/file.ts';
export { OutputFile, openScratch } from './io/node/output-file.ts';

/**
 * Opens a migration stream or mapped-ram file: a path, `-` for standard input, `PATH,offset=N`, or whatever
 * the portable `open` takes.
 *
 * @throws Error with Node's `code` (ENOENT, EACCES, …) if the file cannot be opened.
 */
export async function open(
  input: string | Openable,
  options: OpenOptions<string | Openable> = {},
): Promise<MigrationFile> {
  const opened: ByteSource[] = [];
  const openPath = async <Input>(path: Input | string): Promise<Input | ByteSource> => {
    if (typeof path !== 'string') return path;
    const source = await openSource(path);
    opened.push(source);
    return source;
  };
  try {
    const { path, offset } = typeof input === 'string' ? parseLocation(input) : { path: input, offset: undefined };
    const source = await openPath(path);
    const parts = await mapParts(options, openPath);
    return await openAnywhere(source, { ...(offset === undefined ? {} : { offset }), ...options, ...parts });
  } catch (error) {
    for (const source of opened) await source.close();
    throw error;
  }
}

const multipliers: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/**
 * Splits `PATH,offset=N` as QEMU's `file:` addresses do. N is decimal or 0x hex, with an optional suffix K, M, G or T.
 * @throws RangeError for an offset beyond 2^53 - 1.
 */
export function parseLocation(location: string): { path: string; offset: number | undefined } {
  const match = /^(.+),offset=(0x[0-9a-f]+|\d+)([kmgt]?)$/i.exec(location);
  if (match === null) return { path: location, offset: undefined };
  const [, path = '', digits = '', suffix = ''] = match;
  const offset = Number(digits) * (multipliers[suffix.toLowerCase()] as number);
  if (!Number.isSafeInteger(offset)) throw new RangeError(`expected an offset below 2^53, got ${digits}${suffix}`);
  return { path, offset };
}
