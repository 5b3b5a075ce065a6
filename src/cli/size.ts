/** Numbers of bytes on the command line: decimal or 0x hex, with an optional suffix K, M, G or T. */
import { UsageError } from './run.ts';

const multipliers: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

export function parseSize(text: string): number {
  const match = /^(0x[0-9a-f]+|\d+)([kmgt]?)$/i.exec(text);
  const [, digits = '', suffix = ''] = match ?? [];
  const size = Number(digits) * (multipliers[suffix.toLowerCase()] as number);
  if (match !== null && Number.isSafeInteger(size)) return size;
  throw new UsageError(`expected a number of bytes such as 4096, 0x1000 or 4K, got "${text}"`);
}

/** A count, from 1 on. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(count) && count > 0) return count;
  throw new UsageError(`expected a count from 1 on, got "${text}"`);
}
