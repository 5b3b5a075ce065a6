/** Parses the offsets that the user types. */
import { parseSize } from '../../read/units.ts';

/** Takes what options of the command line take, such as 0x7c00 or 1MiB. Undefined for anything else. */
export function parseOffset(text: string): number | undefined {
  try {
    return parseSize(text.trim());
  } catch {
    return undefined;
  }
}
