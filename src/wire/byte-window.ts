/**
 * A window onto a source of bytes. Decoders read from it, and do not know what fills it.
 *
 * A decoder is a generator. It takes bytes from the window and yields what it found. When it cannot continue, it yields
 * a {@link Need}: more bytes, or bytes from elsewhere. The driver (`read/window-reader.ts`) answers a need by changing
 * the window. So the same decoder serves a 100 GB file, a pipe, a socket and a Blob, and its hot loops never await.
 *
 *     bytes   |....consumed....|######unread######|....stale....|
 *                              ^ position         ^ limit
 */
import type { BatchOrigin } from '../kernel/page-batch.ts';
import { MigrationError, type Place, type PlaceOrigin } from '../vm/migration-error.ts';

/** What a decoder asks of its driver. */
export type Need =
  /**
   * Make at least `bytes` unread bytes available, or set `ended`. At most {@link maxNeed}. `optional`: the decoder can go
   * on without them, which matters for a live source that is silent.
   */
  | { kind: 'more'; bytes: number; optional?: true }
  /**
   * Continue at this offset of the source. `length` is the number of bytes needed there, if known: infinite if all that
   * follow are needed.
   */
  | { kind: 'seek'; offset: number; length?: number };

/** How bytes that a decoder cannot read itself are compressed. */
export type InflateFormat =
  /** Part of the one compressed stream of a multifd channel. Its state lives from need to need. */
  | 'zlib'
  | 'zstd'
  /** A single whole page: a complete zlib stream, or deflate data without a header. */
  | 'zlib-page'
  | 'deflate-page';

/**
 * A further need of the multifd decoders: decompress `input` into `target`, and set `written` to the length of the
 * output.
 */
export interface InflateRequest {
  kind: 'unpack';
  format: InflateFormat;
  input: Uint8Array;
  target: Uint8Array;
  written: number;
  /** Set instead of `written` if the input does not decompress. The decoder throws it. */
  error?: MigrationError;
  /** The place of the packet, for errors. */
  place: Place;
}

/** The most bytes that a decoder may need at once: a 64 KiB page with its header, and some look-ahead. */
export const maxNeed = 72 * 1024;

export class ByteWindow {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Name of the source, for places. */
  readonly source: string;
  /** Index of the next unread byte. */
  position = 0;
  /** Index one past the last unread byte. */
  limit = 0;
  /** Offset in the source of `bytes[0]`. Negative if the window holds a later part of the source. */
  base = 0;
  /** No bytes follow `limit`. */
  ended = false;
  /** What offsets count, for places. */
  coordinate: PlaceOrigin['coordinate'] = 'file';
  /** Idstr of the section being read, for places. */
  section: string | undefined;
  /** Number of the multifd channel that this source is, for places. */
  channel: number | undefined;
  /** Bytes of the whole source, if known. */
  size = Number.POSITIVE_INFINITY;
  /** Each seek costs as much as reading many bytes, and each byte counts: the source is on a server. */
  isRemote = false;

  constructor(bytes: Uint8Array, source: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.source = source;
  }

  /** Offset in the source of the next unread byte. */
  get offset(): number {
    return this.base + this.position;
  }

  get available(): number {
    return this.limit - this.position;
  }

  /** What all places in the source have in common. */
  get origin(): BatchOrigin {
    const { source, coordinate, channel } = this;
    return channel === undefined ? { source, coordinate } : { source, coordinate, channel };
  }

  place(offset = this.offset): Place {
    // There is a place per packet, so no object is copied.
    const place: Place = { source: this.source, coordinate: this.coordinate, offset };
    if (this.channel !== undefined) place.channel = this.channel;
    if (this.section !== undefined) place.section = this.section;
    return place;
  }
}

/** Waits until `count` bytes are available. @throws MigrationError `truncated` if the source ends earlier. */
export function* need(window: ByteWindow, count: number, what: string): Generator<Need, void> {
  if (window.available >= count) return;
  yield { kind: 'more', bytes: count };
  if (window.available < count) throw truncated(window, count, what);
}

function truncated(window: ByteWindow, count: number, what: string, got = window.available): MigrationError {
  return new MigrationError(
    'truncated',
    `expected ${count} bytes of ${what}, got ${got} before the end`,
    window.place(Math.min(window.base + window.limit, window.size)),
  );
}

/** True when `count` bytes are available; false if the source ends earlier. */
export function* has(window: ByteWindow, count: number): Generator<Need, boolean> {
  if (window.available < count) yield { kind: 'more', bytes: count };
  return window.available >= count;
}

/** Like {@link has}. It is also false if a live source is silent for a while: the decoder can go on without these bytes. */
export function* hasSoon(window: ByteWindow, count: number): Generator<Need, boolean> {
  if (window.available < count) yield { kind: 'more', bytes: count, optional: true };
  return window.available >= count;
}

export function* takeU8(window: ByteWindow, what: string): Generator<Need, number> {
  yield* need(window, 1, what);
  return window.bytes[window.position++] as number;
}

export function* takeU16(window: ByteWindow, what: string): Generator<Need, number> {
  yield* need(window, 2, what);
  const value = window.view.getUint16(window.position);
  window.position += 2;
  return value;
}

export function* takeU32(window: ByteWindow, what: string): Generator<Need, number> {
  yield* need(window, 4, what);
  const value = window.view.getUint32(window.position);
  window.position += 4;
  return value;
}

export function* takeU64(window: ByteWindow, what: string): Generator<Need, bigint> {
  yield* need(window, 8, what);
  const value = window.view.getBigUint64(window.position);
  window.position += 8;
  return value;
}

/** Takes a 64-bit size or offset as a number. @throws MigrationError `limit-exceeded` beyond 2^53 - 1. */
export function* takeSize(window: ByteWindow, what: string): Generator<Need, number> {
  const value = yield* takeU64(window, what);
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new MigrationError(
    'limit-exceeded',
    `expected ${what} below 2^53, got ${value}`,
    window.place(window.offset - 8),
  );
}

/** Takes a u8 length and that many bytes, as latin1 text, which preserves every byte. */
export function* takeString(window: ByteWindow, what: string): Generator<Need, string> {
  const length = yield* takeU8(window, what);
  yield* need(window, length, what);
  const text = latin1(window.bytes, window.position, length);
  window.position += length;
  return text;
}

/** Skips any number of bytes by reading them. */
export function* skip(window: ByteWindow, count: number, what: string): Generator<Need, void> {
  let left = count;
  while (left > 0) {
    if (window.available === 0 && !(yield* has(window, 1))) throw truncated(window, count, what, count - left);
    const step = Math.min(left, window.available);
    window.position += step;
    left -= step;
  }
}

/** Copies any number of bytes. Memory grows only as they arrive, except when they are known to exist. */
export function* takeBytes(window: ByteWindow, count: number, what: string): Generator<Need, Uint8Array> {
  const isThere = Number.isFinite(window.size) && count <= window.size - window.offset;
  const whole = isThere ? new Uint8Array(count) : undefined;
  const parts: Uint8Array[] = [];
  let left = count;
  while (left > 0) {
    if (window.available === 0 && !(yield* has(window, 1))) throw truncated(window, count, what, count - left);
    const step = Math.min(left, window.available);
    const part = window.bytes.subarray(window.position, window.position + step);
    if (whole === undefined) parts.push(part.slice());
    else whole.set(part, count - left);
    window.position += step;
    left -= step;
  }
  return whole ?? concat(parts);
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0] as Uint8Array;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Bytes as text, one character per byte. */
export function latin1(bytes: Uint8Array, at: number, length: number): string {
  let text = '';
  for (let i = at; i < at + length; i++) text += String.fromCharCode(bytes[i] as number);
  return text;
}
