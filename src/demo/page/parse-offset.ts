/** Offsets as the command line takes them; undefined for anything else. */
import { parseBytes } from '../../read/location.ts';

export function parseOffset(text: string): number | undefined {
  const offset = parseBytes(text.trim());
  return Number.isSafeInteger(offset) ? offset : undefined;
}
