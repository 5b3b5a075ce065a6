/**
 * A Flow: a migration in motion, as an ordered sequence of items. Every input decodes to a Flow. Everything that needs
 * order (verify, relay, settling into a store) reads a Flow.
 *
 * Items are views: a `pages` batch and a `bitmap` are valid only until the next item is requested. RAM blocks come one
 * by one, because a mapped-ram file stores each block's pages between the entries of the block list.
 */

import type { PageBatch } from '../kernel/page-batch.ts';
import type { VmDescription } from './description.ts';
import type { Finding, Place, PlaceOrigin } from './migration-error.ts';
import type { RamBlock } from './ram-block.ts';

/** What the source machine states about itself. Facts: docs/formats/stream.md, "Configuration". */
export interface Configuration {
  /** Machine type, such as `pc-i440fx-10.0`. */
  machine: string;
  /** log2 of the target page size, if stated. */
  targetPageBits?: number;
  /** Capabilities that change the format, if any are on. */
  capabilities: string[];
  /** Guest UUID as 32 hex digits, if stated. */
  uuid?: string;
  /** Ids in a file that holds only the changes since another file; vmferry's own (docs/formats/incremental.md). */
  changes?: ChangesIds;
}

/** Ids of the RAM content before and after the changes, 16 hex digits each. */
export interface ChangesIds {
  base: string;
  content: string;
}

/** The kind of a section: start, part or end of an iterable, or a whole device. */
export type SectionKind = 'start' | 'part' | 'end' | 'full';

/** A section, as it is in the stream. All numbers are in bytes. */
export interface Section {
  kind: SectionKind;
  id: number;
  /** idstr of the device or iterable, such as `ram` or `0000:00:02.0/vga`. */
  name: string;
  instanceId: number;
  versionId: number;
  /** Offset of the section's type byte in the source. */
  offset: number;
  /** Bytes from the type byte to the end of the footer. */
  length: number;
  /** The section is inside an embedded (packaged) stream. */
  packaged: boolean;
}

/** How the end of a device section was found. */
export type Boundary = 'description' | 'footer' | 'guess';

/** A device's state: a SECTION_FULL. */
export interface DeviceSection extends Section {
  /** The body: description fields and subsections, as written by QEMU. Empty if it was not kept. */
  data: Uint8Array;
  boundary: Boundary;
  /** Bytes of a body that was not kept, because it is over 64 MiB. */
  omitted?: number;
}

/** A migration command. Facts: docs/formats/stream.md, "Commands". */
export interface Command {
  code: number;
  name: string;
  offset: number;
  payload: Uint8Array;
}

/** The JSON description of the device sections, which QEMU appends. */
export interface Description {
  offset: number;
  length: number;
  text: string;
  /** The parsed description. Undefined if it is not JSON, or is nested too deeply. */
  parsed: VmDescription | undefined;
  /**
   * The result of JSON.parse, computed on first access. Elements of a list repeat their keys, so only the last element
   * remains. Undefined as above.
   */
  readonly value: unknown;
}

/**
 * How the target page size is known: the stream states it, the machine has no other, the pages show it, or 4 KiB is
 * assumed.
 */
export type PageSizeFrom = 'stream' | 'machine' | 'pages' | 'assumed';

/** One item of a Flow, identified by its `kind`. */
export type FlowItem =
  /**
   * The items that follow come from this source, and their offsets count in it. Before the first such item they come
   * from the file itself.
   */
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
  /** Present bits (LSB first) of mapped-ram pages, if only the bitmaps are read. `firstPage` is a multiple of 64. */
  | { kind: 'bitmap'; block: RamBlock; firstPage: number; bits: Uint8Array }
  /** The page scan started again at a lower address. The following pages overwrite earlier ones. */
  | { kind: 'pass-end'; offset: number }
  /**
   * The destination discards these pages (postcopy). Content that was sent for them is stale, and will be sent again.
   */
  | { kind: 'discard'; block: RamBlock; firstPage: number; pages: number }
  /** The present state of a disk's dirty bitmap, after each section that was about it. */
  | { kind: 'dirty-bitmap'; bitmap: DirtyBitmap }
  /**
   * End of a multifd epoch. The pages of `channels` channels, up to their SYNC packets, came before it. 0: no channel
   * was given.
   */
  | { kind: 'sync'; offset: number; channels: number }
  /** Pages of a multifd packet that vmferry cannot decompress. Their content is unknown. */
  | { kind: 'unread-pages'; block: RamBlock; pages: readonly number[]; method: string; place: Place }
  /** A multifd packet with a part of a device's state, for that device's own handler (VFIO). Its bytes are skipped. */
  | { kind: 'device-packet'; device: { name: string; instanceId: number; length: number }; place: Place }
  | { kind: 'command'; command: Command }
  | { kind: 'device'; device: DeviceSection }
  | { kind: 'finding'; finding: Finding }
  /** The EOF byte. */
  | { kind: 'eof'; offset: number }
  | { kind: 'description'; description: Description }
  /** End of the stream. `offset` is the first byte after it. */
  | { kind: 'end'; offset: number };

/** A dirty bitmap of a disk, as far as the stream has sent it. */
export interface DirtyBitmap {
  /** The node (or its alias) and the bitmap. */
  node: string;
  name: string;
  /** Bytes of the disk per bit. */
  granularity: number;
  enabled: boolean;
  persistent: boolean;
  /** Bytes of the disk that the received bits cover, and how many of these bits are set. */
  coveredBytes: number;
  dirtyBits: number;
  /** COMPLETE was received. */
  complete: boolean;
}
