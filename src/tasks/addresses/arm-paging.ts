/**
 * Page tables of ARM in AArch64 state, stage 1: TTBR0 translates the lower addresses, TTBR1 the upper ones. Of a CPU at EL2, the
 * registers of EL2 count.
 */
import type { StateStruct } from '../../devices/device-state.ts';
import { armRegisters, listRegisters } from '../../devices/register-list.ts';
import type { Entry, Level, PageTables } from './page-tables.ts';
import { type Paging, type ReadRegister, UnknownPaging } from './paging.ts';

/** KVM's number of a system register, by which QEMU saves it: op0, op1, CRn, CRm, op2. */
const systemRegister = (op0: number, op1: number, crn: number, crm: number, op2: number): bigint =>
  0x6030_0000_0013_0000n + BigInt((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2);

interface Registers {
  sctlr: bigint;
  tcr: bigint;
  ttbr0: bigint;
  ttbr1: bigint;
}

const el1: Registers = {
  sctlr: systemRegister(3, 0, 1, 0, 0),
  tcr: systemRegister(3, 0, 2, 0, 2),
  ttbr0: systemRegister(3, 0, 2, 0, 0),
  ttbr1: systemRegister(3, 0, 2, 0, 1),
};
const el2: Registers = {
  sctlr: systemRegister(3, 4, 1, 0, 0),
  tcr: systemRegister(3, 4, 2, 0, 2),
  ttbr0: systemRegister(3, 4, 2, 0, 0),
  ttbr1: systemRegister(3, 4, 2, 0, 1),
};
const hcrEl2 = systemRegister(3, 4, 1, 1, 0);

const translationOn = 1n;
const bigEndianTables = 1n << 25n;
/** HCR_EL2: the guest's addresses go through a second stage; EL2 has two ranges as EL1 has. */
const stage2 = 1n;
const hostAtEl2 = 1n << 34n;
/** PSTATE.nRW. */
const aarch32 = 1n << 4n;

/** `ttbr0` replaces the register. */
export function armTables(state: StateStruct, read: ReadRegister, ttbr0?: bigint): Paging {
  const pstate = read('cpsr');
  if ((pstate & aarch32) !== 0n)
    throw new UnknownPaging('page tables are known of AArch64 state, and the CPU is in AArch32');
  const system = listRegisters(state, armRegisters);
  if (system === undefined) throw new UnknownPaging('its system registers cannot be read');
  const level = Number((pstate >> 2n) & 3n);
  if (level === 3) throw new UnknownPaging('it is at EL3, whose page tables are not known');
  const hcr = system.get(hcrEl2) ?? 0n;
  const isAtEl2 = level === 2;
  if (!isAtEl2 && (hcr & stage2) !== 0n) {
    throw new UnknownPaging('it runs a virtual machine of its own, and the second stage of translation is not known');
  }
  const hasUpper = !isAtEl2 || (hcr & hostAtEl2) !== 0n;
  const names = isAtEl2 ? el2 : el1;
  const value = (name: keyof Registers) => {
    const found = system.get(names[name]);
    if (found === undefined) throw new UnknownPaging(`it has no register ${name.toUpperCase()}_EL${isAtEl2 ? 2 : 1}`);
    return found;
  };
  if ((value('sctlr') & translationOn) === 0n) return { name: 'AArch64 without paging', tables: [] };
  const tcr = value('tcr');
  const isBigEndian = (value('sctlr') & bigEndianTables) !== 0n;
  const ranges = [lowerRange(tcr, ttbr0 ?? value('ttbr0'), hasUpper)];
  if (hasUpper) ranges.push(upperRange(tcr, value('ttbr1')));
  const tables = ranges.filter((range) => range.isOn).map((range) => treeOf(range, isBigEndian));
  const [first] = ranges as [Range];
  const bits = [...new Set(ranges.map(({ size }) => size))].join(' and ');
  const isTagged = (isUpper: boolean) => ranges.some((range) => range.isUpper === isUpper && range.isTagged);
  return {
    name: `AArch64, pages of ${2 ** first.granule / 1024} KiB, ${bits} bits`,
    tables,
    normalize: (address) => (isTagged(isInUpper(address)) ? BigInt.asUintN(64, BigInt.asIntN(56, address)) : address),
  };
}

/** Bit 55 chooses the range. */
const isInUpper = (address: bigint): boolean => ((address >> 55n) & 1n) === 1n;

/** One of the two ranges of addresses. */
interface Range {
  isOn: boolean;
  isUpper: boolean;
  /** Bits of an address. */
  size: number;
  /** log2 of the bytes of a page. */
  granule: number;
  /** Entries have 52 bits of address in pages of 4 or 16 KiB (LPA2). */
  isWide: boolean;
  isTagged: boolean;
  ttbr: bigint;
}

const field = (value: bigint, at: number, bits: number): number =>
  Number((value >> BigInt(at)) & ((1n << BigInt(bits)) - 1n));

const granules0: Readonly<Record<number, number>> = { 0: 12, 1: 16, 2: 14 };
const granules1: Readonly<Record<number, number>> = { 1: 14, 2: 12, 3: 16 };

function granuleOf(known: Readonly<Record<number, number>>, code: number): number {
  const granule = known[code];
  if (granule === undefined) throw new UnknownPaging(`its TCR has a size of pages that is reserved (${code})`);
  return granule;
}

/** `isPair`: the register has the fields of two ranges; otherwise (EL2 without a host) those of one, some elsewhere. */
function lowerRange(tcr: bigint, ttbr: bigint, isPair: boolean): Range {
  return {
    isOn: !isPair || field(tcr, 7, 1) === 0,
    isUpper: false,
    size: 64 - field(tcr, 0, 6),
    granule: granuleOf(granules0, field(tcr, 14, 2)),
    isWide: field(tcr, isPair ? 59 : 32, 1) === 1,
    isTagged: field(tcr, isPair ? 37 : 20, 1) === 1,
    ttbr,
  };
}

function upperRange(tcr: bigint, ttbr: bigint): Range {
  return {
    isOn: field(tcr, 23, 1) === 0,
    isUpper: true,
    size: 64 - field(tcr, 16, 6),
    granule: granuleOf(granules1, field(tcr, 30, 2)),
    isWide: field(tcr, 59, 1) === 1,
    isTagged: field(tcr, 38, 1) === 1,
    ttbr,
  };
}

function treeOf({ isUpper, size, granule, isWide, ttbr }: Range, isBigEndian: boolean): PageTables {
  if (size < granule + 1 || size > 52) throw new UnknownPaging(`its TCR has addresses of ${size} bits`);
  const each = granule - 3;
  const levels: Level[] = [];
  for (let shift = granule; shift < size; shift += each) levels.unshift({ shift, bits: Math.min(each, size - shift) });
  // A root that does not fill its page may begin within it. The lowest bit is a flag, bits 2 to 5 the uppermost of an address
  // of 52 bits.
  const hasUpperBits = granule === 16 || isWide;
  const low = ttbr & ((1n << 48n) - 1n);
  const aligned = hasUpperBits ? low & ~0x3fn : low & ~0xfn;
  const root = Number(aligned) + (hasUpperBits ? field(ttbr, 2, 4) * 2 ** 48 : 0);
  return {
    root,
    levels,
    entryBytes: 8,
    isBigEndian,
    base: isUpper ? (1n << 64n) - (1n << BigInt(size)) : 0n,
    signExtends: false,
    decode: decodeEntry(granule, isWide),
  };
}

function decodeEntry(granule: number, isWide: boolean): PageTables['decode'] {
  return (low, high, { shift }): Entry | undefined => {
    if ((low & 1) === 0) return undefined;
    const address = addressIn(low, high, granule, isWide);
    const isTable = (low & 2) !== 0;
    if (shift === granule) return isTable ? { memory: address } : undefined;
    return isTable ? { table: address } : { memory: address - (address % 2 ** shift) };
  };
}

/** Bits 47 to the granule, and where there are 52 bits, those above from where the granule keeps them. */
function addressIn(low: number, high: number, granule: number, isWide: boolean): number {
  const page = 2 ** granule;
  const lower = low - (low % page);
  if (granule === 16) return (high & 0xffff) * 2 ** 32 + lower + ((low >>> 12) & 0xf) * 2 ** 48;
  if (isWide) return (high & 0x3_ffff) * 2 ** 32 + lower + ((low >>> 8) & 3) * 2 ** 50;
  return (high & 0xffff) * 2 ** 32 + lower;
}
