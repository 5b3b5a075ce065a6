/** Page tables of x86: 32-bit, PAE, and 64-bit with four or five levels. */
import type { Entry, Level, PageTables } from './page-tables.ts';
import type { Paging, ReadRegister } from './paging.ts';

const PG = 1n << 31n;
const PSE = 1n << 4n;
const PAE = 1n << 5n;
const LA57 = 1n << 12n;
/** EFER.LMA. */
const longModeActive = 1n << 10n;

const present = 1;
const large = 0x80;
/** Bits 32 to 51 of an address, in the upper word of an entry. */
const upperMask = 0xf_ffff;

const at = (shift: number, bits = 9): Level => ({ shift, bits });

/** `cr3` replaces the register. */
export function x86Tables(read: ReadRegister, has64Bits: boolean, cr3 = read('env.cr[3]')): Paging {
  const cr4 = read('env.cr[4]');
  if ((read('env.cr[0]') & PG) === 0n) return { name: 'x86 without paging', tables: [] };
  if (has64Bits && (read('env.efer') & longModeActive) !== 0n) {
    const five = (cr4 & LA57) !== 0n;
    const levels = [...(five ? [at(48)] : []), at(39), at(30), at(21), at(12)];
    return paging(`x86-64, ${levels.length} levels`, {
      root: rootOf(cr3, 12n),
      levels,
      signExtends: true,
      decode: decode64,
    });
  }
  if ((cr4 & PAE) !== 0n) {
    const levels = [at(30, 2), at(21), at(12)];
    return paging('x86, PAE', { root: rootOf(cr3 & 0xffff_ffffn, 5n), levels, signExtends: false, decode: decode64 });
  }
  const levels = [at(22, 10), at(12, 10)];
  const decode = decode32((cr4 & PSE) !== 0n);
  return paging('x86, 32-bit', {
    root: rootOf(cr3 & 0xffff_ffffn, 12n),
    levels,
    signExtends: false,
    decode,
    entryBytes: 4,
  });
}

type Tree = Pick<PageTables, 'root' | 'levels' | 'signExtends' | 'decode'> & { entryBytes?: 4 };

const paging = (name: string, tree: Tree): Paging => ({ name, tables: [{ base: 0n, entryBytes: 8, ...tree }] });

/** A root without its flags: PCID, write-through, and in the upper bits no part of an address. */
function rootOf(cr3: bigint, alignment: bigint): number {
  const address = cr3 & ((1n << 52n) - 1n);
  return Number((address >> alignment) << alignment);
}

/** Large pages are at 2 MiB and 1 GiB; in the levels above, the bit is reserved. */
function decode64(low: number, high: number, { shift }: Level): Entry | undefined {
  if ((low & present) === 0) return undefined;
  const address = (high & upperMask) * 2 ** 32 + ((low - (low & 0xfff)) >>> 0);
  if (shift === 12) return { memory: address };
  const isLarge = (low & large) !== 0 && (shift === 21 || shift === 30);
  return isLarge ? { memory: address - (address % 2 ** shift) } : { table: address };
}

/** Pages of 4 MiB have bits 32 to 39 of their address in bits 13 to 20 (PSE-36). */
function decode32(hasLarge: boolean): PageTables['decode'] {
  return (low, _high, { shift }) => {
    if ((low & present) === 0) return undefined;
    const address = (low & 0xffff_f000) >>> 0;
    if (shift === 12) return { memory: address };
    if (!hasLarge || (low & large) === 0) return { table: address };
    return { memory: ((low >>> 13) & 0xff) * 2 ** 32 + ((low & 0xffc0_0000) >>> 0) };
  };
}
