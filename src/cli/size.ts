/** Numbers of bytes on the command line: decimal or 0x hex, with an optional suffix K, M, G or T. */
import { parseBytes } from '../read/location.ts';
import { UsageError } from './exit-codes.ts';

export function parseSize(text: string): number {
  const size = parseBytes(text);
  if (Number.isSafeInteger(size)) return size;
  throw new UsageError(`expected a number of bytes such as 4096, 0x1000 or 4K, got "${text}"`);
}

/** Parses bytes per second, as {@link parseSize} does and also 1.5G, or bits per second: kbps, mbps, gbps. */
export function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmg])bps$/i.exec(text);
  if (match === null) {
    const bytes = text.replace(/(?:i?b)?\/s$/i, '');
    const [, decimal, unit] = /^(\d+\.\d+)([kmgt])$/i.exec(bytes) ?? [];
    const rate = decimal === undefined ? parseBytes(bytes) : Math.round(Number(decimal) * parseBytes(`1${unit}`));
    if (Number.isSafeInteger(rate)) return rate;
    throw new UsageError(`expected bytes per second such as 128M, or bits such as 1gbps, got "${text}"`);
  }
  const [, digits = '', suffix = ''] = match;
  return Math.round((Number(digits) * 1000 ** ('kmg'.indexOf(suffix.toLowerCase()) + 1)) / 8);
}

/** Parses a count of at least 1. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(count) && count > 0) return count;
  throw new UsageError(`expected a count of at least 1, got "${text}"`);
}
