/**
 * vmferry in Node: everything of `index.ts`, and files, pipes and standard input by their paths.
 */

import { existsSync, statSync } from 'node:fs';
import { type Openable, open as openAnywhere } from './index.ts';
import type { ByteSource } from './io/byte-source.ts';
import { isHttp } from './io/http-source.ts';
import { NodeCodecs } from './io/node/codecs.ts';
import { nodeDecompress } from './io/node/decompress.ts';
import { openSource } from './io/node/file.ts';
import { beginsWith, listNumbered } from './io/node/numbered-files.ts';
import {
  type ChosenChannels,
  chooseChannels,
  type MainFacts,
  readMainFacts,
  type ScannedChannel,
  scanChannel,
} from './read/channel-set.ts';
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
export type { ChosenChannels, RefusedChannel } from './read/channel-set.ts';
export { parseLocation } from './read/location.ts';

/**
 * Finds the channels of a multifd migration beside its main stream: `PATH.0`, `PATH.1` and so on, as `convert --to
 * multifd` names them. It reads the main stream and the headers of all packets. Files that begin like a channel but do not
 * belong to the main stream, such as those of an earlier save, are refused. Without channels, or if the file at PATH is not
 * a main stream, both lists are empty.
 *
 * @throws Error with Node's `code` if a file cannot be read
 */
export async function findChannels(path: string): Promise<ChosenChannels> {
  const nothing = { channels: [], refused: [] };
  const paths = listNumbered(path).filter((each) => beginsWith(each, channelMagic));
  if (paths.length === 0 || statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return nothing;
  const main = await open(path);
  let facts: MainFacts | undefined;
  try {
    facts = main.containers.length > 0 ? undefined : await readMainFacts(main);
  } finally {
    await main.close();
  }
  if (facts === undefined) return nothing;
  const scanned: ScannedChannel[] = [];
  for (const each of paths) {
    const source = await openSource(each);
    try {
      const channel = await scanChannel(source, facts.pageSize);
      if (channel !== undefined) scanned.push(channel);
    } finally {
      await source.close();
    }
  }
  return chooseChannels(facts, scanned);
}

/** The first bytes of a channel. */
const channelMagic = Uint8Array.of(0x11, 0x22, 0x33, 0x44);

/** A main stream, or a file by itself, with the channels that were found for it. */
export interface FileSet extends ChosenChannels {
  path: string;
}

/**
 * Groups paths into sets: a path that is a channel of another path in the list is not listed by itself. So is a channel that
 * was refused, which its main stream names in `refused`. All other paths keep their order.
 */
export async function groupSets(paths: readonly string[]): Promise<FileSet[]> {
  const found = new Map<string, ChosenChannels>();
  const parts = new Set<string>();
  for (const path of paths) {
    const set = await findChannels(path);
    found.set(path, set);
    for (const part of [...set.channels, ...set.refused.map(({ name }) => name)]) parts.add(part);
  }
  return paths.flatMap((path) => (parts.has(path) ? [] : [{ path, ...(found.get(path) as ChosenChannels) }]));
}

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
