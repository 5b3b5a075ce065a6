/**
 * Page tables as trees: each level takes some bits of a virtual address as the index of an entry, which leads to a table of the
 * next level or to memory.
 *
 *     virtual address   | index | index | index | index | offset |
 *                           │       │       │       │
 *     root ─────────────────┴─ table ─ table ─ table ┴─ page
 *
 * `paging.ts` says what the levels are and what an entry means. Here a tree is only walked.
 */
import type { Abortable } from '../../io/abort.ts';

/** Virtual addresses are counted in units of this many bytes, so that they fit in a number. */
export const unitBytes = 4096;

/** A level of a tree. */
export interface Level {
  /** The lowest bit of the address that belongs to the index. */
  shift: number;
  /** How many bits the index has. */
  bits: number;
}

/** What an entry leads to: a table of the next level, or memory. Both are guest-physical addresses. */
export type Entry = { table: number } | { memory: number };

/** A tree. */
export interface PageTables {
  /** Guest-physical address of the table of the first level. */
  root: number;
  /** From the root down. */
  levels: readonly Level[];
  /** Bytes of an entry. */
  entryBytes: 4 | 8;
  isBigEndian?: boolean;
  /** The virtual address that index 0 of all levels stands for. */
  base: bigint;
  /** Addresses in the tree's upper half have all upper bits set. */
  signExtends: boolean;
  /**
   * Reads an entry. `index` is its index in the table.
   * @returns undefined if nothing is mapped there
   */
  decode(low: number, high: number, level: Level, index: number): Entry | undefined;
}

/** Contiguous virtual memory that is contiguous guest-physical memory. */
export interface Mapping {
  /** Virtual address in units, counted from the tree's `base`. */
  unit: number;
  /** Guest-physical address. */
  physical: number;
  units: number;
}

/** Reads guest-physical memory. Undefined if some of it is not RAM. */
export type ReadTable = (physical: number, length: number) => Promise<DataView | undefined>;

/** The tables that may be visited, if nothing else is said. */
const defaultTables = 1 << 16;

/** Tables that a guest with so much RAM may have: one a page, which a tree that contains itself shows twice, and some more. */
export const maxTablesOf = (ramBytes: number): number => defaultTables + (2 * ramBytes) / unitBytes;

/** Tables that contain one another, so that a walk does not end. */
export class EndlessTables extends Error {}

/** Bits of a virtual address that the tree translates. */
function addressBits({ levels }: PageTables): number {
  const [first] = levels;
  return first === undefined ? 0 : first.shift + first.bits;
}

/** The units of a tree that addresses `from` to `end` fall into, ascending: of a tree that signs its addresses, up to two ranges. */
export function unitRanges(tables: PageTables, from: bigint, end: bigint): { from: number; end: number }[] {
  const units = 2 ** (addressBits(tables) - 12);
  const halves = tables.signExtends ? [0, units / 2] : [0];
  return halves.flatMap((unit) => {
    const base = addressOf(tables, unit);
    const count = units / halves.length;
    const first = from > base ? (from - base) >> 12n : 0n;
    const last = (end - base + 0xfffn) >> 12n;
    if (last <= first || first >= BigInt(count)) return [];
    return [{ from: unit + Number(first), end: unit + (last > BigInt(count) ? count : Number(last)) }];
  });
}

/** The virtual address of a unit. */
export function addressOf(tables: PageTables, unit: number): bigint {
  const bits = addressBits(tables);
  const address = BigInt(unit) << 12n;
  return BigInt.asUintN(64, tables.base + (tables.signExtends ? BigInt.asIntN(bits, address) : address));
}

/** Which units are walked: all by default. */
export interface WalkOptions extends Abortable {
  from?: number;
  end?: number;
  /** The most tables that are visited. Default 65,536. More mean tables that contain one another. */
  maxTables?: number;
}

/** Reads an entry of a table as two words. */
function entryAt(table: DataView, { entryBytes, isBigEndian = false }: PageTables, index: number): [number, number] {
  const at = index * entryBytes;
  const first = table.getUint32(at, !isBigEndian);
  if (entryBytes === 4) return [first, 0];
  const second = table.getUint32(at + 4, !isBigEndian);
  return isBigEndian ? [second, first] : [first, second];
}

/**
 * What a tree maps in units `from` to `end`, ascending, each mapping as long as possible.
 * @throws EndlessTables if the walk does not end
 */
export async function* walkTables(
  tables: PageTables,
  read: ReadTable,
  { from = 0, end = 2 ** (addressBits(tables) - 12), maxTables = defaultTables, signal }: WalkOptions = {},
): AsyncGenerator<Mapping, void> {
  const { levels, entryBytes } = tables;
  let visits = 0;
  let pending: Mapping | undefined;

  async function* visit(table: number, depth: number, start: number): AsyncGenerator<Mapping, void> {
    const level = levels[depth] as Level;
    if (++visits > maxTables) throw new EndlessTables(`the page tables have more than ${maxTables} tables`);
    signal?.throwIfAborted();
    const view = await read(table, entryBytes * 2 ** level.bits);
    if (view === undefined) return;
    const each = 2 ** (level.shift - 12);
    const first = Math.max(0, Math.floor((from - start) / each));
    const last = Math.min(2 ** level.bits, Math.ceil((end - start) / each));
    for (let index = first; index < last; index++) {
      const [low, high] = entryAt(view, tables, index);
      const entry = low === 0 && high === 0 ? undefined : tables.decode(low, high, level, index);
      if (entry === undefined) continue;
      const unit = start + index * each;
      if ('memory' in entry) yield { unit, physical: entry.memory, units: each };
      else if (depth + 1 < levels.length) yield* visit(entry.table, depth + 1, unit);
    }
  }

  for await (const mapping of visit(tables.root, 0, 0)) {
    const cut = clip(mapping, from, end);
    if (cut === undefined) continue;
    if (pending !== undefined && follows(pending, cut)) pending.units += cut.units;
    else {
      if (pending !== undefined) yield pending;
      pending = cut;
    }
  }
  if (pending !== undefined) yield pending;
}

function clip({ unit, physical, units }: Mapping, from: number, end: number): Mapping | undefined {
  const first = Math.max(unit, from);
  const last = Math.min(unit + units, end);
  return first < last
    ? { unit: first, physical: physical + (first - unit) * unitBytes, units: last - first }
    : undefined;
}

function follows(before: Mapping, { unit, physical }: Mapping): boolean {
  return before.unit + before.units === unit && before.physical + before.units * unitBytes === physical;
}
