/**
 * The return path (docs/formats/postcopy.md, "The return path"): the messages of the destination to the source.
 *
 *     be16 type | be16 length | payload
 *
 *     1 SHUT            be32 status: 0 = fine; the last message
 *     2 PONG            be32 value of the PING
 *     3 REQ_PAGES_ID    be64 start | be32 length | counted block name       (bytes)
 *     4 REQ_PAGES       be64 start | be32 length                            of the last named block
 *     5 RECV_BITMAP     counted block name; beyond the payload: be64 size | bits | be64 0x0123456789abcdef
 *     6 RESUME_ACK      be32 1
 *     7 SWITCHOVER_ACK  nothing
 *
 * The bits of RECV_BITMAP say which pages have been received, LSB first, in whole 64-bit words. The decoder counts
 * them, and keeps them on demand.
 */

import { MigrationError } from '../vm/migration-error.ts';
import { maxRamBytes } from '../vm/ram-block.ts';
import { type ByteWindow, has, type Need, need, takeString, takeU16, takeU32, takeU64 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';

/** The numbers of the messages on the return path. */
export const ReturnType = {
  shut: 1,
  pong: 2,
  reqPagesId: 3,
  reqPages: 4,
  recvBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const;

interface Layout {
  name: string;
  /** Bytes of payload. `named`: this many bytes and a counted name. */
  length: number;
  named: boolean;
}

const layouts: Record<number, Layout> = {
  1: { name: 'SHUT', length: 4, named: false },
  2: { name: 'PONG', length: 4, named: false },
  3: { name: 'REQ_PAGES_ID', length: 12, named: true },
  4: { name: 'REQ_PAGES', length: 12, named: false },
  5: { name: 'RECV_BITMAP', length: 0, named: true },
  6: { name: 'RESUME_ACK', length: 4, named: false },
  7: { name: 'SWITCHOVER_ACK', length: 0, named: false },
};

/** Whether a message may have this type and this length of payload, in bytes. */
export function isReturnHead(type: number, length: number): boolean {
  const layout = layouts[type];
  if (layout === undefined) return false;
  return layout.named ? length > layout.length && length <= layout.length + 256 : length === layout.length;
}

/** One message. Offsets and lengths are in bytes. */
export interface ReturnMessage {
  type: number;
  name: string;
  /** Where the message begins in its source, and its whole length there. */
  offset: number;
  length: number;
  /** SHUT: the status; PONG, RESUME_ACK: the value. */
  value?: number;
  /** REQ_PAGES_ID, REQ_PAGES, RECV_BITMAP: the RAM block. */
  block?: string;
  /** REQ_PAGES_ID, REQ_PAGES: the requested range. */
  start?: number;
  bytes?: number;
  /** RECV_BITMAP: bytes of bits, and how many are set. */
  bitmapBytes?: number;
  received?: number;
  /** RECV_BITMAP, if they are kept: the bits. */
  bits?: Uint8Array;
}

/** The largest bitmap accepted: for 64 TiB in pages of 1 KiB. */
const maxBitmap = BigInt(maxRamBytes / 1024 / 8);
const endMark = 0x0123_4567_89ab_cdefn;

/**
 * Decodes messages to the end of the source. With `keepsBits` the bits of bitmaps are kept.
 * @throws MigrationError `bad-return-path`, `truncated`
 */
export function* decodeReturnPath(window: ByteWindow, keepsBits = false): Generator<Need | ReturnMessage, void> {
  let block: string | undefined;
  let isShut = false;
  while (yield* has(window, 1)) {
    if (isShut) throw bad(window, window.offset, 'expected nothing after SHUT');
    const message = yield* decodeMessage(window, block, keepsBits);
    if (message.type === ReturnType.reqPagesId) block = message.block;
    isShut = message.type === ReturnType.shut;
    yield message;
  }
}

function* decodeMessage(
  window: ByteWindow,
  latest: string | undefined,
  keepsBits: boolean,
): Generator<Need, ReturnMessage> {
  const offset = window.offset;
  const type = yield* takeU16(window, 'a return path message');
  const length = yield* takeU16(window, 'a return path message');
  const layout = layouts[type];
  if (layout === undefined) throw bad(window, offset, `unknown message type ${type}`);
  const { name, named } = layout;
  if (!isReturnHead(type, length)) {
    const expected = named ? `${layout.length} bytes and a name` : `${layout.length} bytes`;
    throw bad(window, offset, `expected ${expected} for ${name}, got ${length}`);
  }
  yield* need(window, length, `the payload of ${name}`);
  const payload = window.offset;
  const fields: Partial<ReturnMessage> = {};
  if (type === ReturnType.reqPagesId || type === ReturnType.reqPages) {
    const start = yield* takeU64(window, name);
    if (start > BigInt(maxRamBytes)) throw bad(window, offset, `expected a page request below 2^46, got ${start}`);
    fields.start = Number(start);
    fields.bytes = yield* takeU32(window, name);
  } else if (layout.length === 4) {
    fields.value = yield* takeU32(window, name);
  }
  if (named) {
    const nameLength = window.bytes[window.position] as number;
    if (window.offset + 1 + nameLength !== payload + length) {
      throw bad(window, offset, `expected a name that fills ${name}, got ${nameLength} bytes`);
    }
    fields.block = yield* takeString(window, name);
  } else if (type === ReturnType.reqPages) {
    if (latest === undefined) throw bad(window, offset, 'REQ_PAGES before any REQ_PAGES_ID');
    fields.block = latest;
  }
  if (type === ReturnType.recvBitmap) Object.assign(fields, yield* decodeBits(window, offset, keepsBits));
  return { type, name, offset, length: window.offset - offset, ...fields };
}

/** Decodes what follows the payload of RECV_BITMAP. */
function* decodeBits(
  window: ByteWindow,
  offset: number,
  keepsBits: boolean,
): Generator<Need, Pick<ReturnMessage, 'bitmapBytes' | 'received' | 'bits'>> {
  const size = yield* takeU64(window, 'the size of a received bitmap');
  if (size % 8n !== 0n || size > maxBitmap) {
    throw bad(window, offset, `expected a bitmap of whole words, at most ${maxBitmap} bytes, got ${size}`);
  }
  let received = 0;
  const bits = new Uint8Array(keepsBits ? Number(size) : 0);
  for (let left = Number(size); left > 0; ) {
    if (window.available === 0) yield* need(window, 1, 'a received bitmap');
    const end = window.position + Math.min(left, window.available);
    if (keepsBits) bits.set(window.bytes.subarray(window.position, end), bits.length - left);
    left -= end - window.position;
    for (; window.position < end; window.position++)
      received += bitCounts[window.bytes[window.position] as number] ?? 0;
  }
  const mark = yield* takeU64(window, 'the end of a received bitmap');
  if (mark !== endMark) throw bad(window, offset, `expected the end mark of a bitmap, got 0x${mark.toString(16)}`);
  return { bitmapBytes: Number(size), received, ...(keepsBits ? { bits } : {}) };
}

function bad(window: ByteWindow, offset: number, message: string): MigrationError {
  return new MigrationError('bad-return-path', message, window.place(offset));
}

const bitCounts = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

/** Encodes a message of the return path. `bits` are those of RECV_BITMAP, in whole words. */
export function encodeReturnMessage(
  out: ByteWriter,
  message: Pick<ReturnMessage, 'type' | 'value' | 'block' | 'start' | 'bytes'>,
  bits: Uint8Array = new Uint8Array(),
): void {
  const { type, value = 0, block = '', start = 0, bytes = 0 } = message;
  const layout = layouts[type];
  if (layout === undefined) throw new RangeError(`expected a message type from 1 to 7, got ${type}`);
  out.u16(type).u16(layout.length + (layout.named ? 1 + block.length : 0));
  if (layout.length === 12) out.u64(start).u32(bytes);
  else if (layout.length === 4) out.u32(value);
  if (layout.named) out.string(block);
  if (type === ReturnType.recvBitmap) out.u64(bits.length).raw(bits).u64(endMark);
}
