/**
 * The protocol between the page and its worker. The page calls the methods of {@link Viewer}. All arguments and results are plain
 * data that can be cloned. `rpc.ts` turns calls into messages, and `worker/engine.ts` answers them.
 *
 * Offsets and lengths are in bytes. Pages are counted from 0 within their RAM block. An open file has a number until it is
 * closed. Every call can be cancelled. It then fails with a {@link ViewerError} of kind `cancelled`.
 */

import type { PartLists } from '../read/parts.ts';
import type { GuessedPart, PartRole } from '../read/sort-parts.ts';
import type { VmDiff } from '../tasks/diff/diff.ts';
import type { InspectedSnapshot, Inspection } from '../tasks/inspect/inspect.ts';
import type { Verification } from '../tasks/inspect/verify.ts';
import type { FindingCode, FindingReason, Place } from '../vm/migration-error.ts';

/** The progress of a call. Short calls do not report any. */
export interface Progress {
  /** The current step, as a verb: such as `reading`, `comparing` or `writing`. */
  doing: string;
  /** Bytes done, and bytes in total. `total` is undefined if it is not known. */
  done: number;
  total: number | undefined;
}

/** The options of every call. `Part` is the type of the partial results, if the call has any. */
export interface CallOptions<Part = never> {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  onPart?: (part: Part) => void;
}

/**
 * What to open: a file, all files of one migration, or a URL. The files can be in any order: their first bytes tell them apart.
 * A single zip archive stands for its members.
 *
 * `roles` says what each file is, if the user has chosen. Recoveries, preempt channels and return paths are then in the order of
 * the list. Together with `roles`, `order` has the numbers of the files in that order. `snapshot` names a snapshot of a qcow2
 * image. `offset` is where the stream begins within its file.
 */
export type FileInput = (
  | { files: readonly File[]; roles?: readonly PartRole[]; order?: readonly number[] }
  | { url: string }
) & {
  snapshot?: string;
  offset?: number;
};

/** Names of the other files of a migration. */
export type PartNames = PartLists<string>;

/** An open file. */
export interface OpenedFile {
  id: number;
  /** Name of the file, or the last part of the URL. Of several files, the name of the main stream or of the last recovery. */
  name: string;
  /** Bytes of all files together. Undefined if the server does not report it. */
  size: number | undefined;
  /** The result of `inspect()`. If the file breaks off, `error` says why, and the rest describes the part before. */
  inspection: Inspection;
  /** The blocks of `inspection.ram.blocks`, in the same order. */
  blocks: BlockView[];
  parts: PartNames;
  /** All of it was read, so {@link Viewer.verify} answers at once. */
  isVerified: boolean;
}

/** What is known of a file while {@link Viewer.open} reads it. {@link Viewer.map} shows the layers `state` and `pass` meanwhile. */
export interface OpeningFile {
  id: number;
  name: string;
  blocks: BlockView[];
}

export interface BlockView {
  /** Position in the list of blocks, as calls take it. */
  index: number;
  idstr: string;
  usedLength: number;
  pageSize: number;
  pages: number;
  /** The layers that the block has. `difference` exists once per second file. */
  layers: Layer[];
}

/**
 * A property of each page of a block.
 *
 * - `state`: the kind of the page's last record. Known as soon as the file is open.
 * - `pass`: the pass of the last record, from 1. 254 stands for pass 254 and all later ones. Known as soon as the file is open.
 * - `entropy`: 0 to 254 for 0 to 8 bits per byte. {@link Viewer.prepare} must read the whole content first.
 * - `difference`: how the page differs from the same page in the file `base`. {@link Viewer.prepare} must read both files first.
 */
export type Layer = 'state' | 'entropy' | 'pass' | 'difference';

/** The classes of the layer `state`. `discarded` pages were dropped at the switchover to postcopy and never sent again. */
export const pageStates = ['absent', 'zero', 'data', 'xbzrle', 'compressed', 'discarded'] as const;
type PageStateName = (typeof pageStates)[number];

/**
 * The classes of the layer `difference`. `not-compared`: only one of the files has the page or its content. `unknown`: the
 * comparison has not reached the page yet.
 */
export const pageDifferences = ['same', 'changed', 'became-zero', 'became-data', 'not-compared', 'unknown'] as const;

/** A layer of a block. For `difference`, `base` is the file to compare with. */
export interface LayerQuery {
  file: number;
  block: number;
  layer: Layer;
  base?: number;
}

/** Cells of `pagesPerCell` pages each, from the page `first` on. Cells at the end of the block may have fewer pages or none. */
export interface MapQuery extends LayerQuery {
  first: number;
  pagesPerCell: number;
  /** At most 65,536. */
  cells: number;
}

/** The current contents of the cells of a map. */
export type CellMap =
  /** For `state` and `difference`: the pages of each class, `classes` numbers per cell. */
  | { kind: 'classes'; classes: number; counts: Uint32Array }
  /**
   * For `entropy` and `pass`: one byte per cell. It is the mean entropy of the pages with data, or the latest pass. 255: there are
   * no pages, or their value is not known.
   */
  | { kind: 'values'; values: Uint8Array };

/** The facts about one page. */
export interface PageFacts {
  page: number;
  state: PageStateName;
  /** Undefined if the page was never sent, or if the file has no passes. */
  pass: number | undefined;
  /** Bits per byte. */
  entropy: number | undefined;
  /** Offset of the page's bytes in the file, if the file has them uncompressed and the offset is known. */
  fileOffset: number | undefined;
}

export interface RamBytes {
  offset: number;
  /** Fewer than requested if the block ends before. */
  bytes: Uint8Array;
}

/** Bytes at a place in a file. */
interface FileBytes {
  offset: number;
  bytes: Uint8Array;
  /** Size of the source. Undefined if it is not known. */
  size: number | undefined;
}

/** A search in RAM. */
export interface SearchQuery {
  pattern: string;
  kind: 'text' | 'utf16' | 'hex' | 'regex';
  ignoreCase?: boolean;
  /** Searches this block only. */
  block?: number;
  /** Ends the search after this many matches. Default 1,000. */
  limit?: number;
  /** Bytes before and after each match. Default 16. */
  context?: number;
}

export interface SearchMatch {
  block: number;
  offset: number;
  bytes: Uint8Array;
  before: Uint8Array;
  after: Uint8Array;
}

export interface SearchResult {
  matches: number;
  /** The search reached its limit, and there may be more matches. */
  limited: boolean;
}

/** The place of a node in the device tree: the position of the device, then the positions among the children. */
export type DevicePath = number[];

/** A device, a field, a subsection or an element of a list. */
export interface DeviceNode {
  path: DevicePath;
  /** `0000:00:02.0/vga#0`, `regs[3]`, `/subsection`. */
  label: string;
  /** QEMU's name for the type of a field. Empty for nodes that are not fields. */
  type: string;
  /** The value, or a short description of a device (`PCI 1234:1111`). Empty if the children say it. */
  text: string;
  /** Offset and length in the source. Undefined for elements without a place of their own. */
  offset: number | undefined;
  length: number | undefined;
  /** The source, if it is not the main file. */
  source?: string;
  /** Number of children. */
  children: number;
  /** Why a device could not be decoded. */
  problem?: string;
}

export interface DeviceMatch {
  node: DeviceNode;
  /** The labels from the device down to the node. */
  labels: string[];
}

export interface DeviceChildren {
  nodes: DeviceNode[];
  total: number;
}

/** Where an output goes: to a file that the user chose, or to a file in the result of the call. */
export type Target = { handle: FileSystemFileHandle } | 'file';

/** A format to write a VM in. `multifd` is a set of several files in a zip archive. */
export type OutputFormat = 'stream' | 'mapped-ram' | 'multifd';

/** A written output. */
export interface Saved {
  bytes: number;
  /** For the target `file`. It stays on disk until {@link Viewer.release}, or until the page is closed. */
  file?: File;
  /** Argument of {@link Viewer.release}. */
  ticket: number;
  /** For a conversion: the result of reading the output back. */
  verification?: Verification;
}

export interface WhatWorks {
  /** Workers that measure pages at the same time in shared memory. 0 without cross-origin isolation. */
  helpers: number;
  /** The build of the kernels. */
  kernel: 'simd' | 'scalar';
  /** Where scratch files go: the origin's private file system, or memory if the browser has none (private windows). */
  scratch: 'disk' | 'memory';
  /** Limit of all scratch files in memory, in bytes. */
  memoryLimit: number;
}

/** The methods of the worker. All failures are {@link ViewerError}s. */
export interface Viewer {
  about(options?: CallOptions): Promise<WhatWorks>;
  /**
   * Reads the whole file once, in constant memory, and verifies it. Of a large mapped-ram file, and of one on a server, it skips
   * the pages. As soon as the RAM blocks are known there is a part. Then each progress event says that more of the map is known.
   */
  open(input: FileInput, options?: CallOptions<OpeningFile>): Promise<OpenedFile>;
  /** Ends all calls on a file and removes its scratch files. */
  close(file: number, options?: CallOptions): Promise<void>;
  /** Computes a layer. {@link Viewer.map} works meanwhile: each progress event says that more of the layer is known. */
  prepare(query: LayerQuery, options?: CallOptions): Promise<void>;
  /** Returns the part of a layer that is known, without waiting. */
  map(query: MapQuery, options?: CallOptions): Promise<CellMap>;
  page(query: { file: number; block: number; page: number }, options?: CallOptions): Promise<PageFacts>;
  /** Bytes of a block's final content, at most 16 MiB. The first call on a stream reads the whole stream. */
  read(
    query: { file: number; block: number; offset: number; length: number },
    options?: CallOptions,
  ): Promise<RamBytes>;
  /** Bytes of the file itself, from a place on, at most 1 MiB. */
  bytes(
    query: { file: number; place: Pick<Place, 'offset'> & Partial<Place>; length: number },
    options?: CallOptions,
  ): Promise<FileBytes>;
  /** Matches arrive as parts, in the order of blocks and addresses. */
  search(query: SearchQuery & { file: number }, options?: CallOptions<SearchMatch[]>): Promise<SearchResult>;
  /** The children of a node from `from` on, at most 1,000 per call. The children of `[]` are the devices. */
  devices(query: { file: number; path: DevicePath; from?: number }, options?: CallOptions): Promise<DeviceChildren>;
  /** Nodes whose label, type or text contains `text`, at most `limit` (default 200). */
  findDevices(query: { file: number; text: string; limit?: number }, options?: CallOptions): Promise<DeviceMatch[]>;
  /** The state of a device as JSON. */
  deviceJson(query: { file: number; device: number }, options?: CallOptions): Promise<string>;
  verify(query: { file: number }, options?: CallOptions): Promise<Verification>;
  /** Compares `file` with the older file `base`. Afterwards the layer `difference` is known. */
  diff(query: { base: number; file: number }, options?: CallOptions): Promise<VmDiff>;
  /** Writes the VM in another form and reads the output back. A file that the user chose gets the whole output or none of it. */
  convert(
    query: { file: number; format: OutputFormat; target: Target; name?: string },
    options?: CallOptions,
  ): Promise<Saved>;
  /** Writes all blocks as raw images in a zip archive. */
  exportBlocks(query: { file: number; target: Target; name?: string }, options?: CallOptions): Promise<Saved>;
  /** Writes a block as a raw image. */
  exportBlock(
    query: { file: number; block: number; target: Target; name?: string },
    options?: CallOptions,
  ): Promise<Saved>;
  /** Deletes the scratch file behind {@link Saved.file}. */
  release(ticket: number, options?: CallOptions): Promise<void>;
}

/**
 * Why a call failed. `bad-input`: the file is damaged or of another kind. `wrong-call`: the arguments are wrong. `no-space`: the
 * storage is full. `unsupported`: the browser lacks something that the page needs. `no-decoder`: the file is compressed in a format
 * that the page cannot decompress. `out-of-reach`: the page must not fetch from that server. `not-loaded`: a part of the page itself
 * could not be loaded. `folder`: a folder was dropped.
 */
export type FailureKind =
  | 'bad-input'
  | 'wrong-call'
  | 'folder'
  | 'no-snapshot'
  | 'unclear-parts'
  | 'network'
  | 'no-space'
  | 'unreadable'
  | 'no-decoder'
  | 'out-of-reach'
  | 'not-loaded'
  | 'unsupported'
  | 'cancelled'
  | 'internal';

/** A failure as plain data. */
export interface Failure {
  kind: FailureKind;
  message: string;
  /** The code of the finding, if the file is bad. */
  code?: FindingCode;
  /** Makes the code more specific. */
  reason?: FindingReason;
  place?: Place;
  /** The message about a bad file, without the place. */
  detail?: string;
  /** For a qcow2 image without a chosen snapshot: the snapshots that it has. */
  snapshots?: InspectedSnapshot[];
  /** For files that do not say how they belong together: a guess. */
  parts?: readonly GuessedPart[];
}

export class ViewerError extends Error {
  override readonly name = 'ViewerError';
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.message);
    this.failure = failure;
  }
}
