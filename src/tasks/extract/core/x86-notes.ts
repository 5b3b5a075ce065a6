/** The notes of x86 CPUs in a core file (docs/formats/elf-core.md, "x86"): CORE of all CPUs, then QEMU of all CPUs. */
import { type CpuRegisters, generalNames, isInLongMode } from '../../../devices/cpu-registers.ts';
import type { CoreHeader, CoreSegment } from './elf-core.ts';
import { type CoreFormat, type CoreNote, StructWriter } from './struct-writer.ts';

const elfMachines = { i386: 3, x86_64: 62 } as const;
const NT_PRSTATUS = 1;
const format: CoreFormat = { elfClass: 64, littleEndian: true };

/** Chooses by the first CPU's mode and the highest address, like QEMU. */
export function chooseX86Core(
  cpus: readonly CpuRegisters[],
  segments: readonly CoreSegment[],
): Pick<CoreHeader, 'format' | 'machine'> {
  const [first] = cpus;
  const isLong = first !== undefined && isInLongMode(first);
  const end = segments.reduce((most, { address, length }) => Math.max(most, address + length), 0);
  return {
    format: { elfClass: isLong || end > 0xffff_ffff ? 64 : 32, littleEndian: true },
    machine: isLong ? elfMachines.x86_64 : elfMachines.i386,
  };
}

/** The notes of all CPUs. If the guest is not in long mode, they have 32-bit registers. */
export function x86Notes(cpus: readonly CpuRegisters[], machine: number): CoreNote[] {
  const isLong = machine === elfMachines.x86_64;
  return [
    ...cpus.map((cpu): CoreNote => {
      return { name: 'CORE', type: NT_PRSTATUS, content: isLong ? encodePrstatus64(cpu) : encodePrstatus32(cpu) };
    }),
    ...cpus.map((cpu): CoreNote => ({ name: 'QEMU', type: 0, content: encodeCpuState(cpu) })),
  ];
}

function nameGeneral(general: readonly bigint[]): Record<(typeof generalNames)[number], bigint> {
  return Object.fromEntries(generalNames.map((name, i) => [name, general[i]])) as ReturnType<typeof nameGeneral>;
}

/** struct elf_prstatus of Linux on x86-64: only the process id, which is the CPU's number from 1, and the registers. */
function encodePrstatus64({ index, general, rip, rflags, segments }: CpuRegisters): Uint8Array {
  const { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, ...more } = nameGeneral(general);
  const { cs, ss, ds, es, fs, gs } = segments;
  const out = new StructWriter(336, format);
  out.at = 32;
  out.u32(index + 1);
  out.at = 112;
  const { r8, r9, r10, r11, r12, r13, r14, r15 } = more;
  out.u64(r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi);
  out.u64(0n, rip, BigInt(cs.selector), rflags, rsp, BigInt(ss.selector), fs.base, gs.base);
  out.u64(...[ds, es, fs, gs].map(({ selector }) => BigInt(selector)));
  return out.bytes;
}

/** The same on i386. */
function encodePrstatus32({ index, general, rip, rflags, segments }: CpuRegisters): Uint8Array {
  const { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi } = nameGeneral(general);
  const { cs, ss, ds, es, fs, gs } = segments;
  const out = new StructWriter(144, format);
  out.at = 24;
  out.u32(index + 1);
  out.at = 72;
  out.u32(rbx, rcx, rdx, rsi, rdi, rbp, rax);
  for (const { selector } of [ds, es, fs, gs]) out.u32(selector & 0xffff);
  out.u32(0, rip, cs.selector & 0xffff, rflags, rsp, ss.selector & 0xffff);
  return out.bytes;
}

const cpuStateLength = 440;

/** QEMU's own note, version 1. cr1 is not kept. */
function encodeCpuState({
  general,
  rip,
  rflags,
  segments,
  cr0,
  cr2,
  cr3,
  cr4,
  kernelGsBase,
}: CpuRegisters): Uint8Array {
  const { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi } = nameGeneral(general);
  const { cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt } = segments;
  const out = new StructWriter(cpuStateLength, format);
  out.u32(1, cpuStateLength);
  out.u64(rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, ...general.slice(8), rip, rflags);
  for (const { selector, limit, flags, base } of [cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt]) {
    out.u32(selector, limit, flags, 0).u64(base);
  }
  out.u64(cr0, 0n, cr2, cr3, cr4, kernelGsBase);
  return out.bytes;
}
