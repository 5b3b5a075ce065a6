/**
 * The registers of an x86 CPU, out of its section `cpu` (docs/formats/devices.md, "CPUs"). The names of fields and the
 * order of registers are those that QEMU 7.2 and 10.0 write.
 */
import type { StateStruct, StateValue } from './device-state.ts';
import { findValue } from './find-value.ts';

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
  /** 0 where the CPU has none. */
  efer: bigint;
  /** How instructions are decoded: by cr0, efer and the code segment. */
  mode: '16-bit real' | '16-bit' | '32-bit' | '64-bit' | 'virtual 8086';
  /** Privilege, from 0 to 3. */
  cpl: number;
}

export interface X86Segment {
  name: string;
  selector: number;
  base: bigint;
  limit: number;
  /** The upper word of the descriptor. */
  flags: number;
}

const registers64 = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'];
const registers32 = ['eax', 'ecx', 'edx', 'ebx', 'esp', 'ebp', 'esi', 'edi'];
const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];

const protectionEnabled = 1n;
const longModeActive = 1n << 10n;
const virtual8086 = 1n << 17n;
const codeLong = 1 << 21;
const code32 = 1 << 22;

/** Undefined: it is no x86 CPU. */
export function readX86Registers(cpu: StateStruct): X86Registers | undefined {
  const regs = findValue(cpu, 'env.regs');
  const ip = integer(findValue(cpu, 'env.eip'));
  const flags = integer(findValue(cpu, 'env.eflags'));
  const control = [0, 2, 3, 4].map((i) => integer(findValue(cpu, `env.cr[${i}]`)));
  const segments = segmentNames.map((name, i) => readSegment(cpu, name, `env.segs[${i}]`));
  if (!Array.isArray(regs) || ip === undefined || flags === undefined) return undefined;
  const [cr0, cr2, cr3, cr4] = control;
  const code = segments[1];
  const stack = segments[2];
  if (cr0 === undefined || cr2 === undefined || cr3 === undefined || cr4 === undefined) return undefined;
  if (code === undefined || stack === undefined) return undefined;
  const is64 = regs.length === 16;
  const efer = integer(findValue(cpu, 'env.efer')) ?? 0n;
  const all = [...segments, readSegment(cpu, 'ldt', 'env.ldt'), readSegment(cpu, 'tr', 'env.tr')];
  const tables = [readSegment(cpu, 'gdt', 'env.gdt'), readSegment(cpu, 'idt', 'env.idt')];
  const mode = modeOf(cr0, efer, flags, code);
  return {
    general: regs.map((value, i) => ({
      name: (is64 ? registers64 : registers32)[i] ?? `r${i}`,
      value: integer(value) ?? 0n,
    })),
    ip,
    flags,
    segments: all.filter((segment) => segment !== undefined),
    tables: tables.flatMap((table) =>
      table === undefined ? [] : [{ name: table.name, base: table.base, limit: table.limit }],
    ),
    cr0,
    cr2,
    cr3,
    cr4,
    efer,
    mode,
    cpl: mode === '16-bit real' ? 0 : mode === 'virtual 8086' ? 3 : (stack.flags >> 13) & 3,
  };
}

function modeOf(cr0: bigint, efer: bigint, flags: bigint, code: X86Segment): X86Registers['mode'] {
  if ((cr0 & protectionEnabled) === 0n) return '16-bit real';
  if ((efer & longModeActive) !== 0n && (code.flags & codeLong) !== 0) return '64-bit';
  if ((flags & virtual8086) !== 0n) return 'virtual 8086';
  return (code.flags & code32) !== 0 ? '32-bit' : '16-bit';
}

function readSegment(cpu: StateStruct, name: string, path: string): X86Segment | undefined {
  const [selector, base, limit, flags] = ['selector', 'base', 'limit', 'flags'].map((part) =>
    integer(findValue(cpu, `${path}.${part}`)),
  );
  if (selector === undefined || base === undefined || limit === undefined || flags === undefined) return undefined;
  return { name, selector: Number(selector), base, limit: Number(limit), flags: Number(flags) };
}

function integer(value: StateValue | undefined): bigint | undefined {
  return typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : undefined;
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

/** The flags that are set, by their names in the manuals; the I/O privilege level if it is not 0. */
export function x86FlagNames(flags: bigint): string[] {
  const names = flagNames.filter(([bit]) => (flags >> BigInt(bit)) & 1n).map(([, name]) => name);
  const iopl = (flags >> 12n) & 3n;
  return iopl === 0n ? names : [...names, `IOPL=${iopl}`];
}
