/**
 * vmferry in Node: everything of `index.ts`, and files, pipes and standard input by their paths.
 */

import { existsSync, realpathSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type Openable, open as openAnywhere } from './index.ts';
import type { ByteSource } from './io/byte-source.ts';
import { isHttp } from './io/http-source.ts';
import { toSource } from './io/input.ts';
import { NodeCodecs } from './io/node/codecs.ts';
import { nodeDecompress } from './io/node/decompress.ts';
import { openSource } from './io/node/file.ts';
import { dataFinder } from './io/node/holes.ts';
import { beginsWith, listNumbered } from './io/node/numbered-files.ts';
import { openScratch } from './io/node/output-file.ts';
import {
  type ChosenChannels,
  chooseChannels,
  type MainFacts,
  readMainFacts,
  type ScannedChannel,
  scanChannel,
} from './read/channel-set.ts';
import { openMember } from './read/container/zip-members.ts';
import { parseLocation, requireWhole, splitInside } from './read/location.ts';
import { type MigrationFile, type OpenOptions, requireFile } from './read/open.ts';
import { mapParts } from './read/parts.ts';
import { resumeArguments as planResume, type Resume, type ResumeOptions } from './tasks/resume/resume-arguments.ts';

export * from './index.ts';
export { NodeCodecs, type NodeCodecsOptions } from './io/node/codecs.ts';
export { type CompressingSink, compressTo } from './io/node/compress.ts';
export { nodeDecompress } from './io/node/decompress.ts';
export { NodeFile, openSource } from './io/node/file.ts';
export { OutputFile, type OutputFileOptions, openScratch } from './io/node/output-file.ts';
export type { ChosenChannels, RefusedChannel } from './read/channel-set.ts';
export { parseLocation } from './read/location.ts';

/** What {@link open} takes in Node: a path, or what the portable `open` takes. */
export type NodeOpenable = string | Openable;

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
 * `IMAGE#SNAPSHOT` for a qcow2 image, `ARCHIVE#MEMBER` for a zip archive, a file URL, or whatever the portable `open`
 * takes. Node and installed programs decompress what is compressed. Channels and other parts may be members of archives, too.
 *
 * @throws Error with Node's `code` (ENOENT, EACCES, …) if the file or one of its parts cannot be opened; otherwise as the
 *   portable `open`.
 */
export async function open(input: NodeOpenable, options: OpenOptions<NodeOpenable> = {}): Promise<MigrationFile> {
  const opened: ByteSource[] = [];
  try {
    const main = await openLocation(input, opened);
    const parts = await mapParts(options, async (part): Promise<Openable> => {
      const { source, inside, offset } = await openLocation(part, opened);
      requireWhole({ offset });
      return inside === undefined ? source : openMember(source as ByteSource, inside);
    });
    const { source, ...where } = main;
    const forNode = { codecs: new NodeCodecs(), decompress: nodeDecompress, makeSpool };
    return await openAnywhere(source, { ...where, ...forNode, ...options, ...parts });
  } catch (error) {
    for (const source of opened) await source.close();
    throw error;
  }
}

/**
 * Reads a mapped-ram file except its pages, and returns the QEMU arguments and the small stream with which a QEMU runs on the file
 * itself, as the portable `resumeArguments`. It passes over holes if the package koffi is installed, on Linux.
 *
 * @throws as the portable `resumeArguments`
 */
export async function resumeArguments(file: MigrationFile, options: ResumeOptions = {}): Promise<Resume> {
  requireFile(file);
  const findData = options.findData ?? (await dataFinder(file.input));
  return planResume(file, { hostPageSize, ...options, ...(findData === undefined ? {} : { findData }) });
}

/** Other processors may have pages of up to 64 KiB, and Node does not say. */
const hostPageSize = process.arch === 'x64' ? 4096 : 65_536;

const makeSpool = () => openScratch(realpathSync(tmpdir()));

interface OpenedLocation extends Pick<OpenOptions, 'inside' | 'offset'> {
  source: Openable;
}

/** Opens an input, and notes its source in `opened`. URLs on servers are left to the portable `open`. */
async function openLocation(input: NodeOpenable, opened: ByteSource[]): Promise<OpenedLocation> {
  if (isServer(input)) return { source: input };
  const location = pathOf(input);
  if (location === undefined) {
    const source = await toSource(input, 'a path, ');
    opened.push(source);
    return { source };
  }
  const { path: named, inside } = splitInside(location, existsSync);
  const { path, offset } = inside === undefined ? parseLocation(named) : { path: named, offset: undefined };
  const source = await openSource(path);
  opened.push(source);
  return {
    source,
    ...(inside === undefined ? {} : { inside }),
    ...(offset === undefined ? {} : { offset }),
  };
}

function isServer(input: NodeOpenable): input is Openable {
  const { href } = Object(input) as { href?: unknown };
  return [input, href].some((each) => typeof each === 'string' && isHttp(each));
}

/** The path that an input is; undefined if it is something else. */
function pathOf(input: NodeOpenable): string | undefined {
  if (typeof input === 'string') return /^file:\/\//i.test(input) ? fromFileUrl(input) : input;
  const { href, protocol } = Object(input) as Partial<URL>;
  return protocol === 'file:' && href !== undefined ? fromFileUrl(href) : undefined;
}

/** The path of a file URL, with the part inside that its fragment names. */
function fromFileUrl(href: string): string {
  const url = new URL(href);
  const inside = decodeURIComponent(url.hash);
  url.hash = '';
  return `${fileURLToPath(url)}${inside}`;
}
