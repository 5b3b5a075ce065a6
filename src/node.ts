/**
 * vmferry in Node: everything of `index.ts`, and files, pipes and standard input by their paths.
 */

import { existsSync } from 'node:fs';
import { type Openable, open as openAnywhere } from './index.ts';
import type { ByteSource } from './io/byte-source.ts';
import { isHttp } from './io/http-source.ts';
import { NodeCodecs } from './io/node/codecs.ts';
import { nodeDecompress } from './io/node/decompress.ts';
import { openSource } from './io/node/file.ts';
import { parseLocation, splitSnapshot } from './read/location.ts';
import type { MigrationFile, OpenOptions } from './read/open.ts';
import { mapParts } from './read/parts.ts';

export * from './index.ts';
export { NodeCodecs } from './io/node/codecs.ts';
export { type CompressingSink, compressTo } from './io/node/compress.ts';
export { nodeDecompress } from './io/node/decompress.ts';
export { NodeFile, openSource } from './io/node/file.ts';
export { OutputFile, type OutputFileOptions, openScratch } from './io/node/output-file.ts';
export { parseLocation } from './read/location.ts';

/**
 * Opens a migration stream or mapped-ram file, or what contains one: a path, `-` for standard input, `PATH,offset=N`,
 * `IMAGE#SNAPSHOT` for a qcow2 image, an http(s) URL, or whatever the portable `open` takes. What is compressed is
 * decompressed by Node and by installed programs.
 *
 * @throws Error with Node's `code` (ENOENT, EACCES, …) if the file or one of its parts cannot be opened.
 */
export async function open(
  input: string | Openable,
  options: OpenOptions<string | Openable> = {},
): Promise<MigrationFile> {
  const opened: ByteSource[] = [];
  const openPath = async (path: string | Openable): Promise<Openable> => {
    if (typeof path !== 'string' || isHttp(path)) return path;
    const source = await openSource(path);
    opened.push(source);
    return source;
  };
  try {
    const parts = await mapParts(options, openPath);
    const withNode = { codecs: new NodeCodecs(), decompress: nodeDecompress, ...options, ...parts };
    if (typeof input !== 'string' || isHttp(input)) return await openAnywhere(input, withNode);
    const { path, snapshot } = splitSnapshot(input, existsSync);
    const location = snapshot === undefined ? parseLocation(path) : { path, offset: undefined };
    const where = {
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(location.offset === undefined ? {} : { offset: location.offset }),
    };
    return await openAnywhere(await openPath(location.path), { ...where, ...withNode });
  } catch (error) {
    for (const source of opened) await source.close();
    throw error;
  }
}
