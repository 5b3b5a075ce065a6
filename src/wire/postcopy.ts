/**
 * Payloads of postcopy's commands (docs/formats/postcopy.md, "Commands"). All integers big-endian:
 *
 *     POSTCOPY_RAM_DISCARD   u8 0 | counted block name | u8 0 | be64 start, be64 length, repeated   (bytes)
 *     RECV_BITMAP            counted block name
 *
 * A discard names the pages that were sent but are stale, and those not sent yet. The destination discards them, and
 * receives them after the switchover. QEMU lists the ranges of a block once, in ascending order. This decoder requires
 * that order, because it limits the work that a hostile stream can cause.
 */
import type { RamBlock } from '../vm/ram-block.ts';
import { latin1 } from './byte-window.ts';
import { ByteWriter } from './byte-writer.ts';

/** A range of a block in pages. */
export interface PageSpan {
  firstPage: number;
  pages: number;
}

const discardVersion = 0;
const rangeBytes = 16;

/** The block name that a payload begins with, and the index after it. Undefined if the payload is cut off. */
function takeName(payload: Uint8Array, at: number): { idstr: string; end: number } | undefined {
  const length = payload[at];
  if (length === undefined || at + 1 + length > payload.length) return undefined;
  return { idstr: latin1(payload, at + 1, length), end: at + 1 + length };
}

/** The block that RECV_BITMAP asks about. Undefined if the payload is more than a name. */
export function readRecvBitmap(payload: Uint8Array): string | undefined {
  const name = takeName(payload, 0);
  return name?.end === payload.length ? name.idstr : undefined;
}

/** Encodes the payload of RECV_BITMAP. */
export function encodeRecvBitmap(idstr: string): Uint8Array {
  return new ByteWriter().string(idstr).bytes();
}

/** A discard as it is in the stream: ranges in bytes, not checked against the block. */
export interface Discard {
  idstr: string;
  ranges: { start: bigint; length: bigint }[];
}

/** Decodes POSTCOPY_RAM_DISCARD. A returned string describes what is wrong with the payload. */
export function readDiscard(payload: Uint8Array): Discard | string {
  if (payload[0] !== discardVersion) return `expected version ${discardVersion}, got ${payload[0]}`;
  const name = takeName(payload, 1);
  if (name === undefined || payload[name.end] !== 0) return 'expected a RAM block name that ends with a zero byte';
  const first = name.end + 1;
  if ((payload.length - first) % rangeBytes !== 0) {
    return `expected whole ranges of ${rangeBytes} bytes, got ${payload.length - first}`;
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const ranges: Discard['ranges'] = [];
  for (let at = first; at < payload.length; at += rangeBytes) {
    ranges.push({ start: view.getBigUint64(at), length: view.getBigUint64(at + 8) });
  }
  return { idstr: name.idstr, ranges };
}

/** Encodes the payload of POSTCOPY_RAM_DISCARD. */
export function encodeDiscard({ idstr, ranges }: Discard): Uint8Array {
  const out = new ByteWriter().u8(discardVersion).string(idstr).u8(0);
  for (const { start, length } of ranges) out.u64(start).u64(length);
  return out.bytes();
}

/**
 * The ranges of a discard in pages. `from` is the first byte after the block's earlier discards. Returns undefined if a
 * range is not whole pages of the block, or does not follow the previous one.
 */
export function spansOf({ ranges }: Discard, block: RamBlock, from: number): PageSpan[] | undefined {
  const spans: PageSpan[] = [];
  const { pageSize, usedLength } = block;
  let passed = BigInt(from);
  for (const { start, length } of ranges) {
    const end = start + length;
    if (start < passed || length === 0n || end > BigInt(usedLength)) return undefined;
    if (start % BigInt(pageSize) !== 0n || length % BigInt(pageSize) !== 0n) return undefined;
    spans.push({ firstPage: Number(start) / pageSize, pages: Number(length) / pageSize });
    passed = end;
  }
  return spans;
}
