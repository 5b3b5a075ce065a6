/** QEMU's words for the types of fields, grouped by how their bytes are read (docs/formats/devices.md). */

/** Types whose bytes have no structure. */
export const bufferTypes: ReadonlySet<string> = new Set(['buffer', 'unused_buffer']);
/** Types that are any number of bytes. */
export const byteTypes: ReadonlySet<string> = new Set([...bufferTypes, 'bitmap']);
/** Types with a description of their own. */
export const structTypes: ReadonlySet<string> = new Set(['struct', 'vstruct', 'tmp']);
/** Lists of elements, each behind a 1, ended by a 0. */
export const queueTypes: ReadonlySet<string> = new Set(['qtailq', 'qlist']);
/** Types that have any number of elements with a description each. */
export const listTypes: ReadonlySet<string> = new Set([...queueTypes, 'gtree']);
