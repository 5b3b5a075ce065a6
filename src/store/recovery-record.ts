/**
 * What a destination must know to go on with a migration in postcopy after its process has ended. It stands behind the
 * stream in the file that keeps what came (docs/formats/mapped-ram.md, "What a broken-off postcopy leaves"):
 *
 *     16 bytes   "vmferry recovery"
 *     be64       bytes of the opening
 *     opening    a stream that breaks off after POSTCOPY_RUN: what the source had said besides pages
 *     per block  three bitmaps of whole 64-bit words: pages with data, zero pages, discarded pages
 *     be64       offset of this record
 *     be32       CRC-32 of all before
 *     16 bytes   "vmferry recovery"
 *
 * Each break adds a record behind the last one, so a power cut while it is written leaves the last one as it was.
 */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { Crc32 } from '../io/crc32.ts';
import { recoveryMark } from '../read/stream-end.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { bitmapBytes, type PageBits } from './page-bits.ts';

/** A record, and where it is. */
export interface RecoveryRecord {
  /** A stream that breaks off after POSTCOPY_RUN. */
  readonly opening: Uint8Array;
  /** The bitmaps of all blocks, one behind the other: data, zero, discarded. */
  readonly bitmaps: Uint8Array;
  /** Offset in bytes of its end, which is where the next one begins. */
  readonly end: number;
}

const markLength = recoveryMark.length;
const headLength = markLength + 8;
const tailLength = 8 + 4 + markLength;
/** Bytes that are searched at a time, backwards from the end. */
const searchBytes = 1 << 20;
/** The largest record accepted, in bytes. */
const maxRecord = 2 ** 30;

/** Encodes a record that will stand at `offset`. */
export function encodeRecoveryRecord(
  { opening, bits }: { opening: Uint8Array; bits: readonly PageBits[] },
  offset: number,
): Uint8Array {
  const out = new ByteWriter();
  out.raw(recoveryMark).u64(opening.length).raw(opening);
  for (const { data, zero, discarded } of bits) out.raw(data).raw(zero).raw(discarded);
  out.u64(offset);
  out.u32(crcOf(out.bytes()));
  return out.raw(recoveryMark).bytes();
}

function crcOf(bytes: Uint8Array): number {
  const crc = new Crc32();
  crc.update(bytes);
  return crc.value;
}

/** What a record says about the pages of each block. Undefined if it is not about these blocks. */
export function pageBitsIn({ bitmaps }: RecoveryRecord, blocks: readonly RamBlock[]): PageBits[] | undefined {
  let at = 0;
  const take = (length: number) => {
    at += length;
    return bitmaps.subarray(at - length, at);
  };
  const bits = blocks.map((block) => {
    const length = bitmapBytes(block);
    return { data: take(length), zero: take(length), discarded: take(length) };
  });
  return at === bitmaps.length ? bits : undefined;
}

/** The last whole record of a file. Undefined if it has none. @throws whatever the file throws */
export async function readRecoveryRecord(file: ByteSource & { size: number }): Promise<RecoveryRecord | undefined> {
  for await (const end of endsOf(file)) {
    const record = await readRecord(file, end);
    if (record !== undefined) return record;
  }
  return undefined;
}

/** Where a record may end, the last one first. */
async function* endsOf(file: ByteSource & { size: number }): AsyncGenerator<number> {
  let to = file.size;
  const least = Math.max(0, file.size - maxRecord);
  while (to - least >= tailLength) {
    const from = Math.max(least, to - searchBytes);
    const bytes = new Uint8Array(to - from);
    await readFully(file, bytes, from);
    let at = lastMark(bytes, bytes.length - markLength);
    for (; at >= 0; at = lastMark(bytes, at - 1)) yield from + at + markLength;
    if (from === least) return;
    // A mark may lie across the border.
    to = from + markLength - 1;
  }
}

function lastMark(bytes: Uint8Array, from: number): number {
  for (let at = from; at >= 0; at--) {
    at = bytes.lastIndexOf(recoveryMark[0] as number, at);
    if (at < 0) return -1;
    const start = at;
    if (recoveryMark.every((byte, i) => bytes[start + i] === byte)) return at;
  }
  return -1;
}

async function readRecord(file: ByteSource, end: number): Promise<RecoveryRecord | undefined> {
  if (end < headLength + tailLength) return undefined;
  const tail = new DataView(new ArrayBuffer(tailLength));
  await readFully(file, new Uint8Array(tail.buffer), end - tailLength);
  const start = tail.getBigUint64(0);
  const most = BigInt(end - headLength - tailLength);
  if (start > most || BigInt(end) - start > maxRecord) return undefined;
  const bytes = new Uint8Array(end - Number(start) - markLength - 4);
  await readFully(file, bytes, Number(start));
  if (crcOf(bytes) !== tail.getUint32(8)) return undefined;
  const length = Number(new DataView(bytes.buffer).getBigUint64(markLength));
  const from = headLength + length;
  if (from > bytes.length - 8) return undefined;
  return { opening: bytes.subarray(headLength, from), bitmaps: bytes.subarray(from, bytes.length - 8), end };
}
