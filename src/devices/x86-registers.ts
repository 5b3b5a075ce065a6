/**
 * The registers of an x86 CPU for people (docs/formats/devices.md, "CPUs"): by name, with the mode that follows from them.
 * `cpu-registers.ts` finds them in the section.
 */
import { generalNames, type RegisterValues, readRegisterValues, type Segment, segmentNames } from './cpu-registers.ts';
import { BadCpuState } from './cpu-values.ts';
import type { StateStruct } from './device-state.ts';

/** An x86 CPU's registers by name. */
export interface X86Registers {
  /** `rax`, … `r15` (`eax` and seven more of a 32-bit CPU), in QEMU's order. */
  general: { name: string; value: bigint }[];
  /** Instruction pointer. */
  ip: bigint;
  flags: bigint;
  /** es, cs, ss, ds, fs, gs, ldt, tr. */
  segments: X86Segment[];
  /** Tables of descriptors: gdt, idt. */
  tables: { name: string; base: bigint; limit: number }[];
  cr0: bigint;
  cr2: bigint;
  cr3: bigint;
  cr4: bigint;
  /** 0 if the CPU has none. */
  efer: bigint;
  /** How instructions are decoded, from cr0, efer and the code segment. */
  mode: '16-bit real' | '16-bit' | '32-bit' | '64-bit' | 'virtual 8086';
  /** Privilege, from 0 to 3. */
  cpl: number;
}

/** A segment register by name. */
export interface X86Segment extends Segment {
  name: string;
}

const protectionEnabled = 1n;
const longModeActive = 1n << 10n;
const virtual8086 = 1n << 17n;
const codeLong = 1 << 21;
const code32 = 1 << 22;

/** Reads the state of the device `cpu`; undefined if it is not an x86 CPU's. */
export function readX86Registers(cpu: StateStruct): X86Registers | undefined {
  try {
    return describeRegisters(readRegisterValues(cpu));
  } catch (error) {
    if (error instanceof BadCpuState) return undefined;
    throw error;
  }
}

function describeRegisters({ general, rip, rflags, segments, cr0, cr2, cr3, cr4, efer }: RegisterValues): X86Registers {
  const names = general.length === 16 ? generalNames : generalNames.map((name) => name.replace('r', 'e'));
  const { cs, ss } = segments;
  const mode = modeOf(cr0, efer, rflags, cs);
  return {
    general: general.map((value, i) => ({ name: names[i] as string, value })),
    ip: rip,
    flags: rflags,
    segments: [...segmentNames, 'ldt' as const, 'tr' as const].map((name) => ({ name, ...segments[name] })),
    tables: (['gdt', 'idt'] as const).map((name) => ({
      name,
      base: segments[name].base,
      limit: segments[name].limit,
    })),
    cr0,
    cr2,
    cr3,
    cr4,
    efer,
    mode,
    cpl: mode === '16-bit real' ? 0 : mode === 'virtual 8086' ? 3 : (ss.flags >> 13) & 3,
  };
}

function modeOf(cr0: bigint, efer: bigint, flags: bigint, code: Segment): X86Registers['mode'] {
  if ((cr0 & protectionEnabled) === 0n) return '16-bit real';
  if ((efer & longModeActive) !== 0n && (code.flags & codeLong) !== 0) return '64-bit';
  if ((flags & virtual8086) !== 0n) return 'virtual 8086';
  return (code.flags & code32) !== 0 ? '32-bit' : '16-bit';
}

const flagNames: [number, string][] = [
  [0, 'CF'],
  [2, 'PF'],
  [4, 'AF'],
  [6, 'ZF'],
  [7, 'SF'],
  [8, 'TF'],
  [9, 'IF'],
  [10, 'DF'],
  [11, 'OF'],
  [14, 'NT'],
  [16, 'RF'],
  [17, 'VM'],
  [18, 'AC'],
  [19, 'VIF'],
  [20, 'VIP'],
  [21, 'ID'],
];

/** Names of the flags that are set, as in the manuals, and the I/O privilege level if it is not 0. */
export function x86FlagNames(flags: bigint): string[] {
  const names = flagNames.filter(([bit]) => (flags >> BigInt(bit)) & 1n).map(([, name]) => name);
  const iopl = (flags >> 12n) & 3n;
  return iopl === 0n ? names : [...names, `IOPL=${iopl}`];
}
