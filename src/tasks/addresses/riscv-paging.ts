/** Page tables of RISC-V with 64 bits: Sv39, Sv48 and Sv57, with pages of 64 KiB (Svnapot). */
import type { Entry, Level, PageTables } from './page-tables.ts';
import { type Paging, type ReadRegister, UnknownPaging } from './paging.ts';

const modes: Readonly<Record<number, { name: string; levels: number }>> = {
  8: { name: 'Sv39', levels: 3 },
  9: { name: 'Sv48', levels: 4 },
  10: { name: 'Sv57', levels: 5 },
};

const valid = 1;
/** Readable, writable or executable: an entry that leads to memory. */
const leaf = 0b1110;

/** `satp` replaces the register. */
export function riscvTables(read: ReadRegister, satp = read('env.satp')): Paging {
  const mode = Number(satp >> 60n);
  if (mode === 0) return { name: 'RISC-V without paging', tables: [] };
  const known = modes[mode];
  if (known === undefined) throw new UnknownPaging(`satp has mode ${mode}, which is not known`);
  const levels: Level[] = Array.from({ length: known.levels }, (_, i) => ({
    shift: 12 + 9 * (known.levels - 1 - i),
    bits: 9,
  }));
  const root = Number(satp & ((1n << 44n) - 1n)) * 4096;
  const tables: PageTables = { root, levels, entryBytes: 8, base: 0n, signExtends: true, decode };
  return { name: `RISC-V, ${known.name}`, tables: [tables] };
}

function decode(low: number, high: number, { shift }: Level, index: number): Entry | undefined {
  if ((low & valid) === 0) return undefined;
  const page = (high & 0x3f_ffff) * 2 ** 22 + (low >>> 10);
  if ((low & leaf) === 0) return { table: page * 4096 };
  // The lowest four bits of a page number of 64 KiB are 1000; those of the address stand in their place.
  const isNapot = high >>> 31 === 1 && shift === 12 && page % 16 === 8;
  if (isNapot) return { memory: (page - 8 + (index % 16)) * 4096 };
  const address = page * 4096;
  return { memory: address - (address % 2 ** shift) };
}
