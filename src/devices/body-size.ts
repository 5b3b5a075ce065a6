/** How many bytes of a device's body its description accounts for. */
import type { StateDescription } from '../vm/description.ts';

/** Bytes of a description's fields and subsections; undefined if a size is missing or absurd. */
export function bodySize({ fields, subsections }: StateDescription): number | undefined {
  let size = 0;
  for (const field of fields) {
    if (field.size === undefined) return undefined;
    size += field.size * (field.arrayLength ?? 1);
  }
  for (const subsection of subsections) {
    const inner = bodySize(subsection);
    if (subsection.vmsdName === '' || inner === undefined) return undefined;
    // 0x05, a counted name and a version come before a subsection's fields.
    size += 1 + 1 + subsection.vmsdName.length + 4 + inner;
  }
  return Number.isSafeInteger(size) ? size : undefined;
}
