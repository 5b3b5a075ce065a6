/**
 * The SRAT among a guest's ACPI tables (docs/formats/x86-memory.md, "ACPI tables"): the addresses of each node, of
 * NVDIMMs, and those that are reserved for memory devices. Integers are little-endian, as in all of ACPI:
 *
 *     0     4  "SRAT"
 *     4     4  length of the table
 *    48        entries: u8 type, u8 length, ...
 *
 *    an entry of type 1, 40 bytes: 2 u32 node · 8 u64 base · 16 u64 length · 28 u32 flags
 *    flags: 1 enabled, 2 hot-pluggable, 4 non-volatile
 */

/** Consecutive guest-physical addresses. */
export interface AddressRange {
  /** The lowest address. */
  base: number;
  /** Bytes. */
  length: number;
}

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
  /** The end of the nodes' memory below 4 GiB. */
  below4g: number;
  /** The lowest address of the nodes' memory from 4 GiB on; undefined if there is none. */
  above4g: number | undefined;
  /** The addresses that QEMU reserves for memory devices. */
  deviceMemory: AddressRange | undefined;
  /** NVDIMMs, in the order of the table. */
  nonVolatile: AddressRange[];
}

const headBytes = 48;
const entryBytes = 40;
/** The table leaves out 0xa0000 to 0xfffff, which is nevertheless RAM of the first node. */
const lowHole = { start: 0xa0000, length: 0x60000 };
const fourGiB = 2 ** 32;

const enabled = 1;
const hotPluggable = 2;
const nonVolatile = 4;

/** Undefined if the entries do not end with the table, or do not describe memory. */
export function decodeSrat(table: DataView): MemoryAffinity | undefined {
  const nodes = new Map<number, MemoryNode>();
  const affinity: MemoryAffinity = {
    nodes: [],
    below4g: 0,
    above4g: undefined,
    deviceMemory: undefined,
    nonVolatile: [],
  };
  for (let at = headBytes; at < table.byteLength; ) {
    const entryLength = at + 1 < table.byteLength ? table.getUint8(at + 1) : 0;
    if (entryLength < 2 || at + entryLength > table.byteLength) return undefined;
    const isMemory = table.getUint8(at) === 1 && entryLength >= entryBytes;
    const flags = isMemory ? table.getUint32(at + 28, true) : 0;
    if ((flags & enabled) !== 0) {
      const node = table.getUint32(at + 2, true);
      const range = readRange(table, at + 8);
      if ((flags & nonVolatile) !== 0) affinity.nonVolatile.push(range);
      else if ((flags & hotPluggable) !== 0) affinity.deviceMemory ??= range;
      else addMemory(affinity, nodes, node, range);
    }
    at += entryLength;
  }
  affinity.nodes = [...nodes.values()].filter((each) => each.length > 0).sort((a, b) => a.base - b.base);
  return affinity.nodes.length === 0 ? undefined : affinity;
}

/** Two u64: an address and a length. */
export function readRange(table: DataView, at: number): AddressRange {
  return { base: Number(table.getBigUint64(at, true)), length: Number(table.getBigUint64(at + 8, true)) };
}

function addMemory(affinity: MemoryAffinity, nodes: Map<number, MemoryNode>, node: number, range: AddressRange): void {
  const { base, length } = range;
  const known = nodes.get(node) ?? { node, base, length: 0 };
  known.base = Math.min(known.base, base);
  known.length += length + (base + length === lowHole.start ? lowHole.length : 0);
  nodes.set(node, known);
  if (length === 0) return;
  if (base < fourGiB) affinity.below4g = Math.max(affinity.below4g, base + length);
  else affinity.above4g = Math.min(affinity.above4g ?? base, base);
}
