/**
 * The SRAT among a guest's ACPI tables (docs/formats/x86-memory.md, "NUMA nodes"): the addresses of each node. QEMU
 * keeps the tables in a RAM block, so a stream contains them. Integers are little-endian, as in all of ACPI:
 *
 *     0     4  "SRAT"
 *     4     4  length of the table
 *    48        entries: u8 type, u8 length, ...
 *
 * The table has no checksum: the firmware computes one for the copy that the guest sees.
 *
 *    an entry of type 1, 40 bytes: 2 u32 node · 8 u64 base · 16 u64 length · 28 u32 flags (1 enabled, 2 hot-pluggable)
 */

/** The RAM block that has the tables. */
export const acpiTablesBlock = '/rom@etc/acpi/tables';

/** The most bytes of it that are searched. QEMU has 128 KiB to 2 MiB. */
export const maxAcpiBytes = 2 << 20;

/** The largest table in bytes, enough for hundreds of nodes and thousands of CPUs. */
const maxTableBytes = 128 << 10;
/** The most places tried that begin like the table. */
const maxTried = 256;

/** The RAM of a NUMA node. */
export interface MemoryNode {
  node: number;
  /** Lowest address. */
  base: number;
  /** Bytes of the node's RAM, including the hole below 1 MiB. */
  length: number;
}

/** An SRAT's description of memory. */
export interface MemoryAffinity {
  /** The nodes with initial memory, by ascending address. */
  nodes: MemoryNode[];
  /** The addresses that QEMU reserves for memory devices. */
  deviceMemory: { base: number; length: number } | undefined;
}

const headBytes = 48;
const entryBytes = 40;
/** The table leaves out 0xa0000 to 0xfffff, which is nevertheless RAM of the first node. */
const lowHole = { start: 0xa0000, length: 0x60000 };

/** Undefined if there is no valid SRAT. */
export function findMemoryAffinity(tables: Uint8Array): MemoryAffinity | undefined {
  const view = new DataView(tables.buffer, tables.byteOffset, tables.byteLength);
  let tried = 0;
  for (let at = 0; at + headBytes <= tables.length && tried < maxTried; at++) {
    if (view.getUint32(at) !== 0x5352_4154) continue;
    const length = view.getUint32(at + 4, true);
    if (length < headBytes || length > Math.min(maxTableBytes, tables.length - at)) continue;
    tried++;
    const affinity = decodeEntries(new DataView(tables.buffer, tables.byteOffset + at, length));
    if (affinity !== undefined) return affinity;
  }
  return undefined;
}

const enabled = 1;
const hotPluggable = 2;

/** Undefined if the entries do not end with the table, or do not describe memory. */
function decodeEntries(table: DataView): MemoryAffinity | undefined {
  const nodes = new Map<number, MemoryNode>();
  let deviceMemory: MemoryAffinity['deviceMemory'];
  for (let at = headBytes; at < table.byteLength; ) {
    const entryLength = at + 1 < table.byteLength ? table.getUint8(at + 1) : 0;
    if (entryLength < 2 || at + entryLength > table.byteLength) return undefined;
    const isMemory = table.getUint8(at) === 1 && entryLength >= entryBytes;
    const flags = isMemory ? table.getUint32(at + 28, true) & (enabled | hotPluggable) : 0;
    if ((flags & enabled) !== 0) {
      const node = table.getUint32(at + 2, true);
      const base = Number(table.getBigUint64(at + 8, true));
      const length = Number(table.getBigUint64(at + 16, true));
      if ((flags & hotPluggable) !== 0) deviceMemory ??= { base, length };
      else addMemory(nodes, { node, base, length });
    }
    at += entryLength;
  }
  const found = [...nodes.values()].filter((each) => each.length > 0).sort((a, b) => a.base - b.base);
  return found.length === 0 ? undefined : { nodes: found, deviceMemory };
}

function addMemory(nodes: Map<number, MemoryNode>, { node, base, length }: MemoryNode): void {
  const known = nodes.get(node) ?? { node, base, length: 0 };
  known.base = Math.min(known.base, base);
  known.length += length + (base + length === lowHole.start ? lowHole.length : 0);
  nodes.set(node, known);
}
