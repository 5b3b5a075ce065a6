/** Parses the offsets that the user types. */
import { parseBytes } from '../../read/location.ts';

/** Takes decimal and 0x hex, with K, M, G or T. Undefined for anything else. */
export function parseOffset(text: string): number | undefined {
  const offset = parseBytes(text.trim());
  return Number.isSafeInteger(offset) ? offset : undefined;
}
