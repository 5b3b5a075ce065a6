/**
 * What the page and its worker say to each other: a {@link Viewer} is what the page calls, and all that crosses is plain
 * data that can be cloned. How calls become messages is `rpc.ts`; who answers them is `worker.ts`.
 *
 * Offsets and lengths are bytes, pages are counted from 0 within their RAM block. A file that was opened has a number, until
 * it is closed. Every call may be cancelled, and then fails with a {@link ViewerError} of kind `cancelled`.
 */

import type { PartLists } from '../read/parts.ts';
import type { GuessedPart, PartRole } from '../read/sort-parts.ts';
import type { VmDiff } from '../tasks/diff/diff.ts';
import type { InspectedSnapshot, Inspection } from '../tasks/inspect/inspect.ts';
import type { Verification } from '../tasks/inspect/verify.ts';
import type { FindingCode, Place } from '../vm/migration-error.ts';

/** How far a call has come. Calls that are quick say nothing. */
export interface Progress {
  /** What is being done, as a verb: `reading`, `settling`, `comparing`, `writing`, `checking`. */
  doing: string;
  /** Bytes done, and to do; `total` undefined: not known. */
  done: number;
  total: number | undefined;
}

/** What every call takes. `Part` is what it hands over before it is done, if it does. */
export interface CallOptions<Part = never> {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  onPart?: (part: Part) => void;
}

/**
 * What to open: one file, or all that belong to a migration in any order (they are known by their first bytes), or a URL.
 * `roles`: what each of the files is, where the reader has said so; then recoveries, preempt channels and return paths are in
 * their order. One zip archive stands for the files in it; `order`: which of them come, and in which order, if there are
 * `roles`. `snapshot`: which one of a qcow2 image. `offset`: where the stream begins, for what is no file of its own.
 */
export type FileInput = (
  | { files: readonly File[]; roles?: readonly PartRole[]; order?: readonly number[] }
  | { url: string }
) & {
  snapshot?: string;
  offset?: number;
};

/** Names of files that belong to a migration beside its main one. */
export type PartNames = PartLists<string>;

/** A file that was opened. */
export interface OpenedFile {
  id: number;
  /** File name, or the last part of the URL; of several, that of the main stream, or of the last recovery. */
  name: string;
  /** Bytes of all files of it; undefined: the server does not say. */
  size: number | undefined;
  /** What `vmferry inspect --json` prints; a file that breaks off has `error` in it, and is shown as far as it goes. */
  inspection: Inspection;
  /** In the order of the file; those of `inspection.ram.blocks`. */
  blocks: BlockView[];
  parts: PartNames;
}

export interface BlockView {
  /** Position in the list of blocks: what calls take. */
  index: number;
  idstr: string;
  usedLength: number;
  pageSize: number;
  pages: number;
  /** Those that there are; `difference` is there for every second file. */
  layers: Layer[];
}

/**
 * What is known of each page of a block.
 *
 * - `state`: what the page's last record was. Known at once.
 * - `pass`: in which pass the last record came, from 1; 254: in that or later. Known at once.
 * - `entropy`: bits per byte, 0 to 254 for 0 to 8. All content must be read: {@link Viewer.prepare}.
 * - `difference` to the file `base`. All content of both must be read.
 */
export type Layer = 'state' | 'entropy' | 'pass' | 'difference';

/** The classes of the layer `state`. `discarded`: forgotten at the switchover to postcopy, and never sent again. */
export const pageStates = ['absent', 'zero', 'data', 'xbzrle', 'compressed', 'discarded'] as const;
export type PageStateName = (typeof pageStates)[number];

/**
 * The classes of the layer `difference`. `not-compared`: only one of the files has the page, or its content; `unknown`: not
 * looked at yet.
 */
export const pageDifferences = ['same', 'changed', 'became-zero', 'became-data', 'not-compared', 'unknown'] as const;
export type PageDifferenceName = (typeof pageDifferences)[number];

/** A layer of a block; `base` is the file that `difference` is to. */
export interface LayerQuery {
  file: number;
  block: number;
  layer: Layer;
  base?: number;
}

/** Cells of `pagesPerCell` pages each, from the page `first` on; the last ones of a block may have fewer, or none. */
export interface MapQuery extends LayerQuery {
  first: number;
  pagesPerCell: number;
  /** At most 65,536. */
  cells: number;
}

/** What is known so far of the cells of a map. */
export type CellMap =
  /** `state`, `difference`: pages by class, `classes` numbers for each cell; without pages all are 0. */
  | { kind: 'classes'; classes: number; counts: Uint32Array }
  /** `entropy` (mean of the pages with data), `pass` (the latest): a byte for each cell, 255: nothing is known, or no pages. */
  | { kind: 'values'; values: Uint8Array };

/** What is known of one page. */
export interface PageFacts {
  page: number;
  state: PageStateName;
  /** Undefined: never sent, or the order of pages says nothing. */
  pass: number | undefined;
  /** Bits per byte. */
  entropy: number | undefined;
  /** Where its bytes lie in the file, if they lie there as they are and it is known. */
  fileOffset: number | undefined;
}

export interface RamBytes {
  offset: number;
  /** As many as the block has, at most those that were asked for. */
  bytes: Uint8Array;
}

/** Bytes of a file, for a place in it. */
export interface FileBytes {
  offset: number;
  bytes: Uint8Array;
  /** Bytes in the source; undefined: not known. */
  size: number | undefined;
}

/** What is searched for, as `vmferry search` takes it. */
export interface SearchQuery {
  pattern: string;
  kind: 'text' | 'utf16' | 'hex' | 'regex';
  ignoreCase?: boolean;
  /** Only in this block. */
  block?: number;
  /** Ends the search after so many matches. Default 1,000. */
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
  /** There may be more. */
  limited: boolean;
}

/** Where a node of the device tree is: the device's position, then positions among the children. */
export type DevicePath = number[];

/** A device, a field, a subsection or an element of a list. */
export interface DeviceNode {
  path: DevicePath;
  /** `0000:00:02.0/vga#0`, `regs[3]`, `/subsection`. */
  label: string;
  /** QEMU's word for the type of a field; empty for what is no field. */
  type: string;
  /** The value in words; of a device what can be said of it in a few (`PCI 1234:1111`). Empty: see the children. */
  text: string;
  /** Where it lies in the source, and how many bytes; undefined for an element that has no place of its own. */
  offset: number | undefined;
  length: number | undefined;
  /** The source, if that is not the file itself. */
  source?: string;
  /** How many children there are. */
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

/** Where an output goes: a file that was chosen to be saved to, or one that the call gives back. */
export type Target = { handle: FileSystemFileHandle } | 'file';

/** A form that a VM is written in. `multifd`: a set of several files, in a zip archive. */
export type OutputFormat = 'stream' | 'mapped-ram' | 'multifd';

/** What was written. */
export interface Saved {
  bytes: number;
  /** With the target `file`: it lies on disk until {@link Viewer.release}, or the page is closed. */
  file?: File;
  /** For {@link Viewer.release}. */
  ticket: number;
  /** Of a conversion: what was read back, and found to hold what was to be written. */
  verification?: Verification;
}

export interface WhatWorks {
  /** Helpers that look at pages at the same time, on shared memory; 0 without cross-origin isolation. */
  helpers: number;
  /** Which build of the kernels. */
  kernel: 'simd' | 'scalar';
  /** Where scratch files go: the origin's private files, or memory, where there are none (private windows). */
  scratch: 'disk' | 'memory';
  /** The most that scratch files may have in memory, in bytes. */
  memoryLimit: number;
}

/** The worker, as the page sees it. All failures are {@link ViewerError}s. */
export interface Viewer {
  about(options?: CallOptions): Promise<WhatWorks>;
  /** Reads the file through (of a mapped-ram file all but the pages), in constant memory. */
  open(input: FileInput, options?: CallOptions): Promise<OpenedFile>;
  /** Ends what still runs on a file, and removes what was kept for it. */
  close(file: number, options?: CallOptions): Promise<void>;
  /** Makes a layer known. Maps may be asked for meanwhile: progress says that there is more to see. */
  prepare(query: LayerQuery, options?: CallOptions): Promise<void>;
  /** What is known of a layer, at once. */
  map(query: MapQuery, options?: CallOptions): Promise<CellMap>;
  page(query: { file: number; block: number; page: number }, options?: CallOptions): Promise<PageFacts>;
  /** Bytes of a block's final content, at most 16 MiB. The first call of a stream reads it through. */
  read(
    query: { file: number; block: number; offset: number; length: number },
    options?: CallOptions,
  ): Promise<RamBytes>;
  /** Bytes of the file itself, around a place: at most 1 MiB. */
  bytes(
    query: { file: number; place: Pick<Place, 'offset'> & Partial<Place>; length: number },
    options?: CallOptions,
  ): Promise<FileBytes>;
  /** Matches come as parts, in the order of blocks and addresses. */
  search(query: SearchQuery & { file: number }, options?: CallOptions<SearchMatch[]>): Promise<SearchResult>;
  /** The children of a node: of `[]` the devices. At most 1,000 at a time, from `from` on. */
  devices(query: { file: number; path: DevicePath; from?: number }, options?: CallOptions): Promise<DeviceChildren>;
  /** Nodes whose label or text contains `text`, at most `limit` (default 200). */
  findDevices(query: { file: number; text: string; limit?: number }, options?: CallOptions): Promise<DeviceMatch[]>;
  /** A device as `vmferry inspect --device NAME --json` prints it. */
  deviceJson(query: { file: number; device: number }, options?: CallOptions): Promise<string>;
  verify(query: { file: number }, options?: CallOptions): Promise<Verification>;
  /** What differs from `base`, the older one, in `file`. Afterwards the layer `difference` is there at once. */
  diff(query: { base: number; file: number }, options?: CallOptions): Promise<VmDiff>;
  /** Writes the VM in another form, and reads it back. A target that was chosen appears whole or not at all. */
  convert(
    query: { file: number; format: OutputFormat; target: Target; name?: string },
    options?: CallOptions,
  ): Promise<Saved>;
  /** Writes all blocks as raw images into a zip archive. */
  exportBlocks(query: { file: number; target: Target; name?: string }, options?: CallOptions): Promise<Saved>;
  /** Writes a block as a raw image. */
  exportBlock(
    query: { file: number; block: number; target: Target; name?: string },
    options?: CallOptions,
  ): Promise<Saved>;
  /** The file that a call gave back is no longer needed. */
  release(ticket: number, options?: CallOptions): Promise<void>;
}

/**
 * How a call failed: `bad-input` is the file, `wrong-call` what was asked for, `no-room` storage that is full, `unsupported` a
 * browser without what the page needs.
 */
export type FailureKind =
  | 'bad-input'
  | 'wrong-call'
  | 'no-snapshot'
  | 'unclear-parts'
  | 'network'
  | 'no-room'
  | 'unreadable'
  | 'unsupported'
  | 'cancelled'
  | 'internal';

/** A failure as plain data. `message` is what the command line prints. */
export interface Failure {
  kind: FailureKind;
  message: string;
  /** Of a bad file. */
  code?: FindingCode;
  place?: Place;
  /** What a bad file is blamed for, without the place. */
  detail?: string;
  /** Of a qcow2 image of which no snapshot was named: those that it has. */
  snapshots?: InspectedSnapshot[];
  /** Of files that do not say how they belong together: how they might. */
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
