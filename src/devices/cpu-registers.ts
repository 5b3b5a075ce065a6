/**
 * The registers of an x86 CPU in its device state, `cpu` (docs/formats/elf-core.md, "Where the registers come from").
 */
import { BadCpuState, readUnsigned, toUnsigned } from './cpu-values.ts';
import { type DeviceState, isStruct, type StateStruct, type StateValue } from './device-state.ts';
import { findValue } from './find-value.ts';

/** A segment register or a table register, as QEMU stores it. */
export interface Segment {
  selector: number;
  base: bigint;
  limit: number;
  /** The upper word of its descriptor. */
  flags: number;
}

/** Names in QEMU's order. */
export const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;

/** The general registers in QEMU's order, by their 64-bit names. */
// biome-ignore format: a table
export const generalNames = [
  'rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15',
] as const;

/** The registers of one CPU. */
export interface RegisterValues {
  /** In the order of {@link generalNames}. A target without long mode has the first eight. */
  general: bigint[];
  rip: bigint;
  rflags: bigint;
  segments: Record<(typeof segmentNames)[number] | 'ldt' | 'tr' | 'gdt' | 'idt', Segment>;
  cr0: bigint;
  cr2: bigint;
  cr3: bigint;
  cr4: bigint;
  efer: bigint;
  kernelGsBase: bigint;
}

/** The registers of a CPU, with its number. */
export interface CpuRegisters extends RegisterValues {
  /** Number of the CPU, from 0. */
  index: number;
}

/** The registers of a CPU, always 16 general ones. @throws BadCpuState */
export function readCpuRegisters({ instanceId, state, problem }: DeviceState): CpuRegisters {
  if (state === undefined) throw new BadCpuState(problem ?? 'its state cannot be read');
  const values = readRegisterValues(state);
  const general = Array.from({ length: 16 }, (_, i) => values.general[i] ?? 0n);
  return { ...values, general, index: instanceId };
}

/** Reads the registers out of the state of the device `cpu`. @throws BadCpuState */
export function readRegisterValues(state: StateStruct): RegisterValues {
  const number = (path: string) => readUnsigned(state, path);
  const general = findValue(state, 'env.regs');
  if (!Array.isArray(general) || (general.length !== 16 && general.length !== 8)) {
    throw new BadCpuState('expected env.regs as 8 or 16 values');
  }
  const segments = findValue(state, 'env.segs');
  if (!Array.isArray(segments) || segments.length !== 6) throw new BadCpuState('expected env.segs as six values');
  const isLong = general.length === 16;
  const named = segmentNames.map((name, i) => [name, toSegment(segments[i], `env.segs[${i}]`)]);
  const tables = ['ldt', 'tr', 'gdt', 'idt'].map((name) => [
    name,
    toSegment(findValue(state, `env.${name}`), `env.${name}`),
  ]);
  return {
    general: general.map((value, i) => toUnsigned(value, `env.regs[${i}]`)),
    rip: number('env.eip'),
    rflags: number('env.eflags'),
    segments: Object.fromEntries([...named, ...tables]),
    cr0: number('env.cr[0]'),
    cr2: number('env.cr[2]'),
    cr3: number('env.cr[3]'),
    cr4: number('env.cr[4]'),
    efer: isLong ? number('env.efer') : 0n,
    kernelGsBase: isLong ? number('env.kernelgsbase') : 0n,
  };
}

/** Whether the CPU is in long mode (EFER.LMA). */
export function isInLongMode({ efer }: CpuRegisters): boolean {
  return (efer & 0x400n) !== 0n;
}

function toSegment(value: StateValue | undefined, path: string): Segment {
  if (value === undefined || !isStruct(value)) throw new BadCpuState(`expected ${path} as a segment`);
  const part = (name: string) => toUnsigned(findValue(value as StateStruct, name), `${path}.${name}`);
  const word = (name: string) => Number(BigInt.asUintN(32, part(name)));
  return { selector: word('selector'), base: part('base'), limit: word('limit'), flags: word('flags') };
}
