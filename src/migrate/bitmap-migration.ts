/**
 * Dirty bitmaps of disks in a migration (capability dirty-bitmaps):
 *
 *     source                                      destination
 *       START: node, name, granularity, flags ──→   a bitmap is made, under the names of its mapping
 *       (RAM)                                ──→
 *       END: bits, COMPLETE                  ──→   the bits are set; a bitmap without COMPLETE is dropped
 *       (in postcopy, END comes after the pages: the guest runs there by then)
 *
 * While they are sent, the source's bitmaps are busy. What the destination cannot place is dropped, and the migration
 * goes on; only a bitmap that exists already fails it. The texts are QEMU's.
 */
import type { DirtyBitmap } from '../vm/flow.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import { ByteWindow } from '../wire/byte-window.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import {
  DirtyBitmapEncoder,
  type DirtyBitmapSink,
  type DirtyBitmapState,
  decodeDirtyBitmaps,
  makeDirtyBitmapState,
  type SentBitmap,
} from '../wire/dirty-bitmap.ts';
import { decodeSectionHead, encodeFooter, encodeSectionHead, type KnownSection } from '../wire/section.ts';
import type { BlockBitmap } from './block-bitmap.ts';
import type { BlockNode, BlockNodes } from './block-node.ts';

/** The parameter block-bitmap-mapping. */
export type BitmapMapping = readonly {
  'node-name': string;
  alias: string;
  bitmaps: readonly { name: string; alias: string; transform?: { persistent?: boolean } }[];
}[];

const sectionName = 'dirty-bitmap';
/** Beyond the ids that QEMU gives to its devices. */
const sectionId = 0x10000;
const maxNameBytes = 255;

/** Bitmaps on their way to a destination. */
export interface BitmapsUnderWay {
  /** To be sent with a guest: START and END, or none if there are no bitmaps. */
  readonly sections: readonly RawSection[];
  /** The migration has ended: the bitmaps are no longer busy. */
  release(): void;
}

/**
 * Takes the bitmaps that a migration sends: all, or those of the mapping. They are busy until they are released.
 * @throws Error with QEMU's text for a bitmap that is busy already, or whose name is too long
 */
export function sendBitmaps(
  nodes: BlockNodes,
  { mapping, hasFooters = true }: { mapping?: BitmapMapping | undefined; hasFooters?: boolean } = {},
): BitmapsUnderWay {
  const chosen = nodes.list.flatMap((node) => bitmapsOf(node, mapping));
  for (const { bitmap } of chosen) bitmap.requireUsable();
  for (const { sent } of chosen) requireShort(sent);
  for (const { bitmap } of chosen) bitmap.isBusy = true;
  const all = chosen.map(({ sent }) => sent);
  const encoder = new DirtyBitmapEncoder();
  const sections: RawSection[] =
    all.length === 0
      ? []
      : [
          { kind: 'start', bytes: encodeSection('start', encoder.start(all), hasFooters) },
          { kind: 'end', bytes: encodeSection('end', encoder.end(all), hasFooters), isPostcopiable: true },
        ];
  return {
    sections,
    release() {
      for (const { bitmap } of chosen) bitmap.isBusy = false;
    },
  };
}

function bitmapsOf(node: BlockNode, mapping: BitmapMapping | undefined): { bitmap: BlockBitmap; sent: SentBitmap }[] {
  const mapped = mapping?.find((each) => each['node-name'] === node.id);
  if (mapping !== undefined && mapped === undefined) return [];
  return node.bitmaps.flatMap((bitmap) => {
    const entry = mapped?.bitmaps.find(({ name }) => name === bitmap.name);
    if (mapped !== undefined && entry === undefined) return [];
    const { granularity, isEnabled: enabled, bits, diskSize } = bitmap;
    const persistent = entry?.transform?.persistent ?? bitmap.isPersistent;
    const names = { node: mapped?.alias ?? node.id, name: entry?.alias ?? bitmap.name };
    return [{ bitmap, sent: { ...names, granularity, enabled, persistent, bits, diskSize } }];
  });
}

function requireShort({ node, name }: SentBitmap): void {
  if (new TextEncoder().encode(name).length <= maxNameBytes) return;
  throw new Error(`Cannot migrate bitmap '${name}' on node '${node}': Name is longer than ${maxNameBytes} bytes`);
}

function encodeSection(kind: 'start' | 'end', body: Uint8Array, hasFooters: boolean): Uint8Array {
  const out = new ByteWriter();
  encodeSectionHead(out, { kind, id: sectionId, name: sectionName, instanceId: 0, versionId: 1 });
  out.raw(body);
  if (hasFooters) encodeFooter(out, sectionId);
  return out.bytes();
}

/** What became of the bitmaps that came with a guest. */
export interface ReceivedBitmaps {
  /** The sections that are not about bitmaps: they go on with the guest. */
  readonly others: RawSection[];
  /** Why bitmaps were dropped, as QEMU says it on standard error. */
  readonly messages: string[];
}

/**
 * Gives the disks the bitmaps that came with a guest. Without disks, all sections go on with it.
 * @throws Error with QEMU's text if a disk has a bitmap of that name; the bitmaps that were made are removed again
 */
export function receiveBitmaps(
  nodes: BlockNodes,
  sections: readonly RawSection[],
  mapping?: BitmapMapping,
): ReceivedBitmaps {
  if (nodes.list.length === 0) return { others: [...sections], messages: [] };
  const known = new Map<number, KnownSection>();
  const arrival = new BitmapArrival(nodes, mapping);
  const state: DirtyBitmapState = { ...makeDirtyBitmapState(), sink: arrival };
  const others: RawSection[] = [];
  try {
    for (const section of sections) if (!takeSection(section, known, state)) others.push(section);
  } catch (error) {
    arrival.dropAll();
    throw error;
  }
  arrival.end();
  return { others, messages: arrival.messages };
}

/** Decodes a section if it is about bitmaps. Returns whether it is. */
function takeSection({ bytes }: RawSection, known: Map<number, KnownSection>, state: DirtyBitmapState): boolean {
  const window = new ByteWindow(bytes, sectionName);
  window.limit = bytes.length;
  window.ended = true;
  const head = finished(decodeSectionHead(window, known, false));
  if (head.name !== sectionName) return false;
  finished(decodeDirtyBitmaps(window, state));
  return true;
}

/** Runs a decoder that has all of its bytes. */
function finished<T>(decoder: Generator<unknown, T>): T {
  for (;;) {
    const { done, value } = decoder.next();
    if (done) return value;
  }
}

/** Bitmaps that arrive, under the names of this side. */
class BitmapArrival implements DirtyBitmapSink {
  readonly messages: string[] = [];
  readonly #nodes: BlockNodes;
  readonly #mapping: BitmapMapping | undefined;
  readonly #made = new Map<DirtyBitmap, { node: BlockNode; bitmap: BlockBitmap }>();
  /** Something could not be placed: the rest is read and dropped. */
  #isCancelled = false;

  constructor(nodes: BlockNodes, mapping: BitmapMapping | undefined) {
    this.#nodes = nodes;
    this.#mapping = mapping;
  }

  start(sent: DirtyBitmap): void {
    const place = this.#isCancelled ? undefined : this.#placeOf(sent);
    if (place === undefined) return;
    const { node, name } = place;
    if (node.bitmaps.some((each) => each.name === name)) {
      throw new Error(`Bitmap with the same name ('${name}') already exists on destination`);
    }
    const bitmap = node.addBitmap(name, { granularity: sent.granularity, isEnabled: sent.enabled });
    bitmap.isPersistent = place.persistent ?? sent.persistent;
    bitmap.isBusy = true;
    this.#made.set(sent, { node, bitmap });
  }

  bits(sent: DirtyBitmap, offset: number, bits: Uint8Array): void {
    const { bitmap } = this.#made.get(sent) ?? {};
    if (bitmap === undefined) return;
    const { granularity } = bitmap;
    for (const [i, byte] of bits.entries()) {
      // What fills the chunk up is beyond the end of the disk.
      for (let bit = 0, rest = byte; rest !== 0; bit++, rest >>= 1) {
        const start = offset + (8 * i + bit) * granularity;
        if ((rest & 1) === 1) bitmap.mark(start, start + granularity);
      }
    }
  }

  complete(sent: DirtyBitmap): void {
    const { bitmap } = this.#made.get(sent) ?? {};
    if (bitmap !== undefined) bitmap.isBusy = false;
  }

  /** Drops what did not arrive as a whole. */
  end(): void {
    for (const { node, bitmap } of this.#made.values()) if (bitmap.isBusy) node.removeBitmap(bitmap);
  }

  dropAll(): void {
    for (const { node, bitmap } of this.#made.values()) node.removeBitmap(bitmap);
  }

  #cancel(message: string): undefined {
    this.messages.push(message);
    this.#isCancelled = true;
    this.end();
    this.#made.clear();
    return undefined;
  }

  #placeOf(sent: DirtyBitmap): { node: BlockNode; name: string; persistent?: boolean | undefined } | undefined {
    const mapped = this.#mapping?.find(({ alias }) => alias === sent.node);
    if (this.#mapping !== undefined && mapped === undefined) {
      return this.#cancel(`Error: Unknown node alias '${sent.node}'`);
    }
    const id = mapped?.['node-name'] ?? sent.node;
    const node = this.#nodes.get(id);
    if (node === undefined) return this.#cancel(`Cannot find device='${id}' nor node-name='${id}'`);
    const entry = mapped?.bitmaps.find(({ alias }) => alias === sent.name);
    if (mapped !== undefined && entry === undefined) {
      return this.#cancel(`Error: Unknown bitmap alias '${sent.name}' on node '${id}' (alias '${sent.node}')`);
    }
    return { node, name: entry?.name ?? sent.name, persistent: entry?.transform?.persistent };
  }
}
