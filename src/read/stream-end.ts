/** The end of a source: the VM description, which is useful before the stream is read, and bytes after the stream. */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { type Finding, makeFinding } from '../vm/migration-error.ts';
import { type DeviceSizes, findDescription, readDeviceSizes } from '../wire/vm-description.ts';
import type { WindowReader } from './window-reader.ts';

/** Bytes at the end that are searched for the description: first the common case, then the largest. */
const tailLengths = [256 * 1024, 16 << 20];
/** The same for a source on a server. It keeps what was read, so each step costs only what it adds. */
const remoteTailLengths = [64 * 1024, ...tailLengths];
/** How long to wait for bytes after the stream, in ms. */
const trailingWaitMs = 1000;
/** Most bytes after the stream that are examined. */
const trailingLimit = 64 << 20;
/** Sizes of volumes are multiples of it, in bytes. */
const volumeUnit = 4096;

/**
 * What begins and ends a record of a migration in postcopy that can go on (store/recovery-record.ts). It belongs to the
 * file, although it follows the stream.
 */
export const recoveryMark: Uint8Array = new TextEncoder().encode('vmferry recovery');

/** Finds the description at the end of a source with random access, and the device sizes in it. */
export async function readSizes(source: ByteSource, offset: number): Promise<DeviceSizes | undefined> {
  const length = Math.max(0, (source.size ?? 0) - offset);
  const lengths = source.willRead === undefined ? tailLengths : remoteTailLengths;
  for (const [i, tailLength] of lengths.entries()) {
    if (i > 0 && length <= (lengths[i - 1] as number)) break;
    const tail = new Uint8Array(Math.min(tailLength, length));
    await readFully(source, tail, offset + length - tail.length);
    const found = findDescription(trimZeros(tail));
    if (found === undefined) continue;
    return { ...readDeviceSizes(found.parsed), found, offset: offset + length - tail.length + found.index };
  }
  return undefined;
}

/** The bytes without the zeros at the end, which are padding of the medium that the stream was stored on. */
function trimZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}

/** The finding for bytes after the stream, if there are any. The reader is at the end of the stream, at `end`. */
export async function examineTrailing(reader: WindowReader, end: number): Promise<Finding | undefined> {
  const { window } = reader;
  let seen = 0;
  let isZero = true;
  // Compressed data is read to its end, because only that shows whether it is whole.
  const toTheEnd = window.coordinate === 'decompressed';
  while ((isZero || toTheEnd) && seen < trailingLimit) {
    // The writer of a pipe may stay silent after the end.
    if (window.available === 0) await reader.satisfyWithin({ kind: 'more', bytes: 1 }, trailingWaitMs);
    const bytes = window.bytes.subarray(window.position, window.limit);
    if (bytes.length === 0) break;
    if (seen === 0 && recoveryMark.every((byte, i) => bytes[i] === byte)) return undefined;
    isZero &&= bytes.every((byte) => byte === 0);
    seen += bytes.length;
    window.position = window.limit;
  }
  if (seen === 0) return undefined;
  const count = Number.isFinite(window.size) ? `${Math.max(window.size - end, seen)}` : `at least ${seen}`;
  const place = window.place(end);
  if (isZero) {
    return makeFinding('trailing-zeros', `${count} bytes follow the end of the stream, zero as far as read`, place);
  }
  const finding = makeFinding('trailing-data', `${count} bytes follow the end of the stream`, place);
  // A volume keeps what was in it before.
  if (window.coordinate !== 'file' || window.size % volumeUnit !== 0) return finding;
  return { ...finding, severity: 'info', message: `${finding.message}: what was in the volume before` };
}
