/**
 * What a guest's ACPI tables say about its memory (docs/formats/x86-memory.md, "ACPI tables"). QEMU keeps the tables in
 * a RAM block, so a stream contains them. They follow each other:
 *
 *     0     4  signature: "DSDT", "SRAT", ...
 *     4     4  length of the table
 *
 * The tables have no checksums: the firmware computes them for the copy that the guest sees.
 *
 *     SRAT   srat.ts
 *     NFIT   an NVDIMM at boot: entry of type 0, 40 + u16 type, u16 length, ... · 32 u64 base · 40 u64 length
 *     CEDT   a window to CXL memory: entry of type 1, 36 + u8 type, u8, u16 length, ... · 8 u64 base · 16 u64 length
 *     DSDT   the PCI bus's addresses above 4 GiB: a QWord resource in the bytecode, found by its first bytes,
 *            8a 2b 00 00 (memory): 14 u64 first address · 22 u64 last address
 */
import { type AddressRange, decodeSrat, type MemoryAffinity, readRange } from './srat.ts';

/** The RAM block that has the tables. */
export const acpiTablesBlock = '/rom@etc/acpi/tables';

/** The most bytes of it that are searched. QEMU has 128 KiB to 2 MiB. */
export const maxAcpiBytes = 2 << 20;

/** The ACPI tables' description of memory. */
export interface AcpiMemory {
  /** The SRAT. A machine has one if it has NUMA nodes or addresses for memory devices. */
  affinity: MemoryAffinity | undefined;
  /** NVDIMMs that were there when the tables were made. */
  nvdimms: AddressRange[];
  /**
   * The addresses of the PCI bus above 4 GiB. QEMU places them above all memory. A length of 0 means that there are
   * none; undefined, that there is no DSDT.
   */
  pciWindow: AddressRange | undefined;
  /** Addresses at which the guest can map CXL memory. */
  cxlWindows: AddressRange[];
}

const headBytes = 36;
/** The largest table in bytes, enough for hundreds of nodes and thousands of CPUs. */
const maxTableBytes = 512 << 10;
/** The most places tried that begin like a table. */
const maxTried = 256;
const fourGiB = 2 ** 32;

type Decoder = (table: DataView, memory: AcpiMemory) => boolean;

const decoders: ReadonlyMap<number, Decoder> = new Map<number, Decoder>([
  [0x5352_4154, addSrat],
  [0x4e46_4954, addNfit],
  [0x4345_4454, addCedt],
  [0x4453_4454, addDsdt],
]);

/** Undefined if there are no tables that describe memory. */
export function findAcpiMemory(tables: Uint8Array): AcpiMemory | undefined {
  const view = new DataView(tables.buffer, tables.byteOffset, tables.byteLength);
  const memory: AcpiMemory = { affinity: undefined, nvdimms: [], pciWindow: undefined, cxlWindows: [] };
  let isFound = false;
  let tried = 0;
  for (let at = 0; at + headBytes <= tables.length && tried < maxTried; at++) {
    const decode = decoders.get(view.getUint32(at));
    if (decode === undefined) continue;
    const length = view.getUint32(at + 4, true);
    if (length < headBytes || length > Math.min(maxTableBytes, tables.length - at)) continue;
    tried++;
    if (!decode(new DataView(tables.buffer, tables.byteOffset + at, length), memory)) continue;
    isFound = true;
    at += length - 1;
  }
  if (!isFound) return undefined;
  // Old machine types have NVDIMMs in the NFIT only.
  for (const range of memory.affinity?.nonVolatile ?? []) addRange(memory.nvdimms, range);
  return memory;
}

function addRange(ranges: AddressRange[], { base, length }: AddressRange): void {
  const isSafe = Number.isSafeInteger(base) && Number.isSafeInteger(base + length) && length > 0;
  if (isSafe && !ranges.some((each) => each.base === base)) ranges.push({ base, length });
}

function addSrat(table: DataView, memory: AcpiMemory): boolean {
  const affinity = decodeSrat(table);
  memory.affinity ??= affinity;
  return affinity !== undefined;
}

/** Calls back for each entry. False if the entries do not end with the table. */
function eachEntry(
  table: DataView,
  start: number,
  lengthAt: number,
  take: (at: number, length: number) => void,
): boolean {
  let at = start;
  while (at + 4 <= table.byteLength) {
    const length = table.getUint16(at + lengthAt, true);
    if (length < 4 || at + length > table.byteLength) return false;
    take(at, length);
    at += length;
  }
  return at === table.byteLength;
}

function addNfit(table: DataView, { nvdimms }: AcpiMemory): boolean {
  const found: AddressRange[] = [];
  const isWhole = eachEntry(table, 40, 2, (at, length) => {
    if (table.getUint16(at, true) === 0 && length >= 48) found.push(readRange(table, at + 32));
  });
  if (isWhole) for (const range of found) addRange(nvdimms, range);
  return isWhole;
}

function addCedt(table: DataView, { cxlWindows }: AcpiMemory): boolean {
  const found: AddressRange[] = [];
  const isWhole = eachEntry(table, 36, 2, (at, length) => {
    if (table.getUint8(at) === 1 && length >= 24) found.push(readRange(table, at + 8));
  });
  if (isWhole) for (const range of found) addRange(cxlWindows, range);
  return isWhole;
}

const qwordBytes = 46;

/** Adds one range from the lowest address of a PCI bus above 4 GiB to the highest. */
function addDsdt(table: DataView, memory: AcpiMemory): boolean {
  let first = Number.POSITIVE_INFINITY;
  let end = 0;
  for (let at = headBytes; at + qwordBytes <= table.byteLength; at++) {
    if (table.getUint32(at) !== 0x8a2b_0000) continue;
    const from = Number(table.getBigUint64(at + 14, true));
    const to = Number(table.getBigUint64(at + 22, true));
    if (from < fourGiB || to < from || to > 2 ** 52) continue;
    first = Math.min(first, from);
    end = Math.max(end, to + 1);
  }
  memory.pciWindow ??= end === 0 ? { base: 0, length: 0 } : { base: first, length: end - first };
  return true;
}
