/** How a CPU translates virtual addresses: what the readers of registers find. */
import type { PageTables } from './page-tables.ts';

/** A CPU's translation of addresses. */
export interface Paging {
  /** Such as `x86-64, 4 levels`; for people. */
  name: string;
  /** The trees, ascending by their addresses. None: a virtual address is the physical one. */
  tables: PageTables[];
  /** The address without what the CPU ignores: the top byte of ARM's tagged addresses. */
  normalize?: (address: bigint) => bigint;
}

/** The registers do not say how addresses are translated, or in a way that is not known. */
export class UnknownPaging extends Error {}

/** Reads a register as an unsigned number of 64 bits. @throws BadCpuState */
export type ReadRegister = (path: string) => bigint;
