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
import { openMember } from './read/container/zip-members.ts';
import { parseLocation, splitInside } from './read/location.ts';
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
 * `IMAGE#SNAPSHOT` for a qcow2 image, `ARCHIVE#MEMBER` for a zip archive, an http(s) URL, or whatever the portable `open`
 * takes. Node and installed programs decompress what is compressed. Channels and other parts may be members of archives, too.
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
    const parts = await mapParts(options, async (part) => {
      if (typeof part !== 'string' || isHttp(part)) return part;
      const { path, inside } = splitInside(part, existsSync);
      const source = (await openPath(path)) as ByteSource;
      return inside === undefined ? source : openMember(source, inside);
    });
    const withNode = { codecs: new NodeCodecs(), decompress: nodeDecompress, ...options, ...parts };
    if (typeof input !== 'string' || isHttp(input)) return await openAnywhere(input, withNode);
    const { path, inside } = splitInside(input, existsSync);
    const location = inside === undefined ? parseLocation(path) : { path, offset: undefined };
    const where = {
      ...(inside === undefined ? {} : { inside }),
      ...(location.offset === undefined ? {} : { offset: location.offset }),
    };
    return await openAnywhere(await openPath(location.path), { ...where, ...withNode });
  } catch (error) {
    for (const source of opened) await source.close();
    throw error;
  }
}
