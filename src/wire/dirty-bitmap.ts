/**
 * The body of a `dirty-bitmap` section (docs/formats/stream.md, "Other iterable sections"): chunks up to EOS.
 *
 *     u8 flags | NODE: counted name | BITMAP: counted name | and then, by flags:
 *
 *     START      be32 granularity, u8 1 enabled, 2 persistent
 *     BITS       be64 first sector, be32 sectors; without ZEROES: be64 n, n bytes        (sectors of 512 bytes)
 *     COMPLETE   nothing
 *     EOS        ends the body
 *
 * A chunk without names has those of the previous chunk, also across sections. A bit stands for `granularity` bytes of
 * the disk. The decoder counts bits, and does not keep them; a {@link DirtyBitmapSink} can.
 */

import type { DirtyBitmap, FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, type Need, need, takeString, takeU8, takeU32, takeU64 } from './byte-window.ts';
import { ByteWriter } from './byte-writer.ts';

/** Takes the chunks as they come. Offsets and lengths in bytes of the disk. */
export interface DirtyBitmapSink {
  start(bitmap: DirtyBitmap): void;
  /** Some of the bits from `offset` on, which is that of the first one. The lowest bit of a byte comes first. */
  bits(bitmap: DirtyBitmap, offset: number, bits: Uint8Array): void;
  complete(bitmap: DirtyBitmap): void;
}

/** What the decoder remembers between chunks and between sections. */
export interface DirtyBitmapState {
  /** Takes what is decoded. */
  sink?: DirtyBitmapSink;
  node: string | undefined;
  name: string | undefined;
  /** By node and name. */
  bitmaps: Map<string, DirtyBitmap>;
}

export function makeDirtyBitmapState(): DirtyBitmapState {
  return { node: undefined, name: undefined, bitmaps: new Map() };
}

const Flag = { eos: 0x01, zeroes: 0x02, bitmap: 0x04, node: 0x08, start: 0x10, complete: 0x20, bits: 0x40, more: 0x80 };
const StartFlag = { enabled: 1, persistent: 2 };
const sectorBytes = 512;
/** QEMU has a few. The limit keeps a hostile stream from using more memory. */
const maxBitmaps = 4096;

/**
 * Decodes a body up to and including its EOS. Then it yields the bitmaps that the body was about, in their present
 * state.
 */
export function* decodeDirtyBitmaps(
  window: ByteWindow,
  state: DirtyBitmapState,
): Generator<Need | (FlowItem & { kind: 'dirty-bitmap' }), void> {
  const touched = new Set<DirtyBitmap>();
  for (;;) {
    const offset = window.offset;
    const bad = (message: string) => new MigrationError('bad-iterable', message, window.place(offset));
    const flags = yield* takeU8(window, 'dirty-bitmap flags');
    const hex = `0x${flags.toString(16)}`;
    if (flags & Flag.more) throw bad(`expected one byte of flags, got ${hex}`);
    if (flags & Flag.node) state.node = yield* takeString(window, 'a node name');
    if (flags & Flag.bitmap) state.name = yield* takeString(window, 'a bitmap name');
    const kind = flags & ~(Flag.node | Flag.bitmap | Flag.zeroes);
    if (flags & Flag.zeroes && kind !== Flag.bits) throw bad(`expected ZEROES only with BITS, got flags ${hex}`);
    if (kind === Flag.eos) break;
    const { node, name } = state;
    if (node === undefined || name === undefined) throw bad('a dirty-bitmap chunk before any names');
    const key = `${node}\0${name}`;
    const bitmap = state.bitmaps.get(key);
    if (kind === Flag.start) {
      if (bitmap !== undefined) throw bad(`a second start of dirty bitmap "${name}" of "${node}"`);
      if (state.bitmaps.size >= maxBitmaps) throw bad(`expected at most ${maxBitmaps} dirty bitmaps`);
      const started = yield* decodeStart(window, node, name, bad);
      state.bitmaps.set(key, started);
      state.sink?.start(started);
      touched.add(started);
    } else if (kind !== Flag.bits && kind !== Flag.complete) {
      throw bad(`expected a dirty-bitmap chunk, got flags ${hex}`);
    } else if (bitmap === undefined) {
      throw bad(`dirty bitmap "${name}" of "${node}" continues, but was never started`);
    } else {
      touched.add(bitmap);
      if (kind === Flag.complete) {
        bitmap.complete = true;
        state.sink?.complete(bitmap);
      } else yield* decodeBits(window, bitmap, { isZeroes: (flags & Flag.zeroes) !== 0, sink: state.sink, bad });
    }
  }
  for (const bitmap of touched) yield { kind: 'dirty-bitmap', bitmap: { ...bitmap } };
}

type Bad = (message: string) => MigrationError;

function* decodeStart(window: ByteWindow, node: string, name: string, bad: Bad): Generator<Need, DirtyBitmap> {
  const granularity = yield* takeU32(window, 'a granularity');
  const flags = yield* takeU8(window, 'dirty-bitmap start flags');
  if (granularity < sectorBytes || !Number.isInteger(Math.log2(granularity))) {
    throw bad(`expected a granularity that is a power of two from ${sectorBytes}, got ${granularity}`);
  }
  if ((flags & ~(StartFlag.enabled | StartFlag.persistent)) !== 0)
    throw bad(`unknown start flags 0x${flags.toString(16)}`);
  const enabled = (flags & StartFlag.enabled) !== 0;
  const persistent = (flags & StartFlag.persistent) !== 0;
  return { node, name, granularity, enabled, persistent, coveredBytes: 0, dirtyBits: 0, complete: false };
}

function* decodeBits(
  window: ByteWindow,
  bitmap: DirtyBitmap,
  { isZeroes, sink, bad }: { isZeroes: boolean; sink: DirtyBitmapSink | undefined; bad: Bad },
): Generator<Need, void> {
  const first = yield* takeU64(window, 'the first sector of dirty bits');
  const sectors = yield* takeU32(window, 'the sectors of dirty bits');
  const start = first * BigInt(sectorBytes);
  const bytes = sectors * sectorBytes;
  if (start % BigInt(bitmap.granularity) !== 0n || start + BigInt(bytes) > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw bad(`expected sectors on a bit of ${bitmap.granularity} bytes, got ${first} and ${sectors} more`);
  }
  bitmap.coveredBytes += bytes;
  if (isZeroes) return;
  const length = yield* takeU64(window, 'the length of dirty bits');
  const bits = Math.ceil(bytes / bitmap.granularity);
  if (length < BigInt(Math.ceil(bits / 8)) || length > BigInt(paddedLength(bits))) {
    throw bad(`expected ${bits} dirty bits, got ${length} bytes`);
  }
  const total = Number(length);
  for (let left = total; left > 0; ) {
    if (window.available === 0) yield* need(window, 1, 'dirty bits');
    const end = window.position + Math.min(left, window.available);
    const at = Number(start) + (total - left) * 8 * bitmap.granularity;
    sink?.bits(bitmap, at, window.bytes.subarray(window.position, end));
    left -= end - window.position;
    for (; window.position < end; window.position++)
      bitmap.dirtyBits += countOnes(window.bytes[window.position] as number);
  }
}

function countOnes(byte: number): number {
  let count = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
}

/** QEMU fills up to 32 bytes. */
const paddedLength = (bits: number) => Math.ceil(bits / 256) * 32;

/** The bits of a chunk, at most. */
const chunkBytes = 1024;

/** A bitmap to be sent, under the names that the destination knows. */
export interface SentBitmap extends Pick<DirtyBitmap, 'node' | 'name' | 'granularity' | 'enabled' | 'persistent'> {
  /** One bit for `granularity` bytes of the disk, the lowest bit of a byte first. */
  bits: Uint8Array;
  /** Bytes of the disk, a multiple of 512. */
  diskSize: number;
}

/** Encodes bodies of the section. Each names only what differs from the chunk before, also across sections. */
export class DirtyBitmapEncoder {
  #node: string | undefined;
  #name: string | undefined;

  /** The body of START: all bitmaps are announced. @throws RangeError for a name over 255 bytes */
  start(bitmaps: readonly SentBitmap[]): Uint8Array {
    const out = new ByteWriter();
    for (const bitmap of bitmaps) {
      this.#head(out, Flag.start, bitmap);
      const flags = (bitmap.enabled ? StartFlag.enabled : 0) | (bitmap.persistent ? StartFlag.persistent : 0);
      out.u32(bitmap.granularity).u8(flags);
    }
    return out.u8(Flag.eos).bytes();
  }

  /** The body of END: all bits. */
  end(bitmaps: readonly SentBitmap[]): Uint8Array {
    const out = new ByteWriter();
    for (const bitmap of bitmaps) this.#bits(out, bitmap);
    for (const bitmap of bitmaps) this.#head(out, Flag.complete, bitmap);
    return out.u8(Flag.eos).bytes();
  }

  #bits(out: ByteWriter, bitmap: SentBitmap): void {
    const { bits, diskSize, granularity } = bitmap;
    const chunkSectors = (chunkBytes * 8 * granularity) / sectorBytes;
    for (let at = 0; at < bits.length; at += chunkBytes) {
      const first = (at / chunkBytes) * chunkSectors;
      const sectors = Math.min(chunkSectors, diskSize / sectorBytes - first);
      const some = bits.subarray(at, at + chunkBytes);
      const isZero = some.every((byte) => byte === 0);
      this.#head(out, isZero ? Flag.bits | Flag.zeroes : Flag.bits, bitmap);
      out.u64(first).u32(sectors);
      if (isZero) continue;
      const length = paddedLength(Math.ceil((sectors * sectorBytes) / granularity));
      out
        .u64(length)
        .raw(some)
        .raw(new Uint8Array(length - some.length));
    }
  }

  #head(out: ByteWriter, kind: number, { node, name }: SentBitmap): void {
    const isNode = node !== this.#node;
    const isName = isNode || name !== this.#name;
    this.#node = node;
    this.#name = name;
    out.u8(kind | (isNode ? Flag.node : 0) | (isName ? Flag.bitmap : 0));
    if (isNode) out.string(node);
    if (isName) out.string(name);
  }
}
