/**
 * A Flow: a migration in motion, as an ordered sequence of items. Every input decodes to one; everything that needs
 * order (verify, relay, settling into a store) reads one.
 *
 * Items are views: a `pages` batch and a `bitmap` are valid only until the next item is asked for.
 * RAM blocks come one by one, not as a list, since a mapped-ram file keeps each block's pages between the entries.
 */

import type { PageBatch } from '../kernel/page-batch.ts';
import type { VmDescription } from './description.ts';
import type { Finding, Place, PlaceOrigin } from './migration-error.ts';
import type { RamBlock } from './ram-block.ts';

/** What the source machine said about itself. Facts: docs/formats/stream.md, "Configuration". */
export interface Configuration {
  /** Machine type, such as `pc-i440fx-10.0`. */
  machine: string;
  /** log2 of the target page size, if stated. */
  targetPageBits?: number;
  /** Capabilities that change the format, if any are on. */
  capabilities: string[];
  /** Guest UUID as 32 hex digits, if stated. */
  uuid?: string;
  /** The file holds only what changed since another; vmferry's own (docs/formats/incremental.md). */
  changes?: ChangesIds;
}

/** Of what the RAM was before and after the changes: ids of its content, 16 hex digits each. */
export interface ChangesIds {
  base: string;
  content: string;
}

/** What a section header begins: the start, a part or the end of an iterable, or a device in one piece. */
export type SectionKind = 'start' | 'part' | 'end' | 'full';

/** A section as it stands in the stream; all numbers in bytes. */
export interface Section {
  kind: SectionKind;
  id: number;
  /** idstr of the device or iterable, such as `ram` or `0000:00:02.0/vga`. */
  name: string;
  instanceId: number;
  versionId: number;
  /** Offset of the section's type byte in the source. */
  offset: number;
  /** From the type byte to the end of the footer. */
  length: number;
  /** Inside an embedded (packaged) stream. */
  packaged: boolean;
}

/** How the end of a device section was found. */
export type Boundary = 'description' | 'footer' | 'guess';

/** A device's state: a SECTION_FULL. */
export interface DeviceSection extends Section {
  /** The body: description fields and subsections, as written by QEMU. */
  data: Uint8Array;
  boundary: Boundary;
}

/** A migration command. Facts: docs/formats/stream.md, "Commands". */
export interface Command {
  code: number;
  name: string;
  offset: number;
  payload: Uint8Array;
}

/** The JSON description of the device sections that QEMU appends. */
export interface Description {
  offset: number;
  length: number;
  text: string;
  /** What it says; undefined if it is no JSON, or nested too deep. */
  parsed: VmDescription | undefined;
  /**
   * The JSON as JSON.parse gives it, when asked for: of list elements, which repeat their keys, only the last is left.
   * Undefined as above.
   */
  readonly value: unknown;
}

/**
 * How the target page size is known: the stream states it, the machine has no other, the pages show it, or it is assumed
 * to be 4 KiB.
 */
export type PageSizeFrom = 'stream' | 'machine' | 'pages' | 'assumed';

/** One item of a Flow, by its `kind`. */
export type FlowItem =
  /** What follows comes from this source, and offsets count in it. Without one: from the file itself. */
  | { kind: 'source'; origin: PlaceOrigin }
  | { kind: 'header'; version: number; offset: number }
  | { kind: 'configuration'; configuration: Configuration; offset: number; length: number }
  | { kind: 'section'; section: Readonly<Omit<Section, 'length'>> }
  | { kind: 'section-end'; section: Section }
  | { kind: 'block'; block: RamBlock }
  /** All RAM blocks are known. */
  | { kind: 'blocks-end'; totalBytes: number; pageSizeFrom: PageSizeFrom }
  /** Pages of one block, ascending, each at most once. */
  | { kind: 'pages'; block: RamBlock; batch: PageBatch }
  /** Present bits (LSB first) of mapped-ram pages, when only the bitmaps are read. `firstPage` is a multiple of 64. */
  | { kind: 'bitmap'; block: RamBlock; firstPage: number; bits: Uint8Array }
  /** The page scan began again from lower addresses: what follows overwrites. */
  | { kind: 'pass-end'; offset: number }
  /** The destination forgets these pages: their content, if any came, is stale, and comes again (postcopy). */
  | { kind: 'discard'; block: RamBlock; firstPage: number; pages: number }
  /** A dirty bitmap of a disk as far as it has come, after each section that was about it. */
  | { kind: 'dirty-bitmap'; bitmap: DirtyBitmap }
  /** A multifd epoch ends: the pages of `channels` channels, up to their SYNC packets, came before. 0: none was given. */
  | { kind: 'sync'; offset: number; channels: number }
  /** Pages of a multifd packet that cannot be decompressed here: their content is not known. */
  | { kind: 'unread-pages'; block: RamBlock; pages: readonly number[]; method: string; place: Place }
  /** A multifd packet with a part of a device's state, for that device's own handler (VFIO); its bytes are passed over. */
  | { kind: 'device-packet'; device: { name: string; instanceId: number; length: number }; place: Place }
  | { kind: 'command'; command: Command }
  | { kind: 'device'; device: DeviceSection }
  | { kind: 'finding'; finding: Finding }
  /** The EOF byte. */
  | { kind: 'eof'; offset: number }
  | { kind: 'description'; description: Description }
  /** The stream is over; `offset` is the first byte after it. */
  | { kind: 'end'; offset: number };

/** A dirty bitmap of a disk, as far as it has come. */
export interface DirtyBitmap {
  /** Node (or its alias) and bitmap. */
  node: string;
  name: string;
  /** Bytes of the disk per bit. */
  granularity: number;
  enabled: boolean;
  persistent: boolean;
  /** Bytes of the disk that the bits which came are about, and how many of the bits are set. */
  coveredBytes: number;
  dirtyBits: number;
  /** COMPLETE came. */
  complete: boolean;
}
