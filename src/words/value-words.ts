/** Values of a device's state in words. */
import type { StateValue } from '../devices/device-state.ts';
import { plural } from './format.ts';
import { hexBytes } from './hex-dump.ts';

/** The most bytes that are shown on the line of their field. */
const inlineBytes = 16;

/** A value as text: small numbers in decimal, larger ones also in hex. */
export function describeValue(type: string, value: StateValue): string {
  if (value === null) return 'NULL';
  if (type === 'timer') return value === -1 ? 'not armed' : `${(Number(value) / 1e9).toFixed(6)} s`;
  if (typeof value !== 'number' && typeof value !== 'bigint') return String(value);
  return value >= -9 && value <= 9 ? String(value) : value < 0 ? String(value) : `${value} (0x${value.toString(16)})`;
}

/** Describes bytes that need no dump. */
export function describeBytes(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return 'empty';
  if (bytes.every((byte) => byte === 0)) return plural(bytes.length, 'zero byte');
  const text = padded(bytes);
  if (text !== undefined) return `"${text}", ${plural(bytes.length, 'byte')}`;
  return bytes.length <= inlineBytes ? hexBytes(bytes) : undefined;
}

/** Printable text followed only by zeros. */
function padded(bytes: Uint8Array): string | undefined {
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const text = bytes.subarray(0, end);
  return end >= 4 && text.every((byte) => byte >= 0x20 && byte < 0x7f) ? String.fromCharCode(...text) : undefined;
}
