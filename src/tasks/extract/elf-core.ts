/**
 * ELF core files as QEMU's `dump-guest-memory` writes them (docs/formats/elf-core.md). Little-endian:
 *
 *     ELF header       64 bytes (ELF64), 52 (ELF32); ET_CORE
 *     section headers  a null one, and .shstrtab
 *     program headers  a PT_NOTE, then a PT_LOAD for each range of memory
 *     notes            CORE NT_PRSTATUS of every CPU, then QEMU of every CPU
 *     memory           the ranges, one after the other
 *     "\0.shstrtab\0"
 */
import { type CpuRegisters, generalNames, isInLongMode, type Segment } from '../../devices/cpu-registers.ts';

/** ELF64 or ELF32. */
type ElfClass = 64 | 32;

/** Memory in the core. Lengths are in bytes. */
export interface CoreSegment {
  /** Guest-physical address. */
  address: number;
  length: number;
}

export interface CoreHeader {
  elfClass: ElfClass;
  /** EM_X86_64, or EM_386 of a guest that is not in long mode. */
  machine: number;
  notes: Uint8Array;
  segments: readonly CoreSegment[];
}

const elfMachines = { i386: 3, x86_64: 62 } as const;

/** The bytes after the memory: the names of the sections. */
export const sectionNames = new TextEncoder().encode('\0.shstrtab\0');

/** QEMU's guests have fewer, and this is the most that a 16-bit count of program headers allows. */
const maxSegments = 0xfffe - 1;

const layouts = {
  64: { header: 64, section: 64, program: 56 },
  32: { header: 52, section: 40, program: 32 },
} as const;

/** The length of the ELF header that QEMU states for both classes. */
const statedHeaderLength = 8;

const ET_CORE = 4;
const PT_LOAD = 1;
const PT_NOTE = 4;
const SHT_STRTAB = 3;
const NT_PRSTATUS = 1;

/** Chooses by the first CPU's mode and the highest address, like QEMU. */
export function chooseElf(
  cpus: readonly CpuRegisters[],
  segments: readonly CoreSegment[],
): Pick<CoreHeader, 'elfClass' | 'machine'> {
  const [first] = cpus;
  const isLong = first !== undefined && isInLongMode(first);
  const end = segments.reduce((most, { address, length }) => Math.max(most, address + length), 0);
  return {
    elfClass: isLong || end > 0xffff_ffff ? 64 : 32,
    machine: isLong ? elfMachines.x86_64 : elfMachines.i386,
  };
}

/** Bytes before the memory. */
export function coreHeaderLength({ elfClass, notes, segments }: CoreHeader): number {
  const { header, section, program } = layouts[elfClass];
  return header + 2 * section + (segments.length + 1) * program + notes.length;
}

/** Everything before the memory. @throws RangeError for too many segments */
export function encodeCoreHeader(core: CoreHeader): Uint8Array {
  const { elfClass, machine, notes, segments } = core;
  if (segments.length > maxSegments)
    throw new RangeError(`expected at most ${maxSegments} segments, got ${segments.length}`);
  const sizes = layouts[elfClass];
  const headers = coreHeaderLength(core) - notes.length;
  const memory = segments.reduce((sum, { length }) => sum + length, 0);
  const out = new LittleEndian(headers + notes.length, elfClass);
  out.bytes.set([0x7f, 0x45, 0x4c, 0x46, elfClass === 64 ? 2 : 1, 1, 1]);
  out.at = 16;
  const programs = sizes.header + 2 * sizes.section;
  out.u16(ET_CORE).u16(machine).u32(1).word(0).word(programs).word(sizes.header).u32(0);
  out
    .u16(statedHeaderLength)
    .u16(sizes.program)
    .u16(segments.length + 1)
    .u16(sizes.section)
    .u16(2)
    .u16(1);

  // The null section, then: name, type, flags, address, offset, size.
  out.at = sizes.header + sizes.section;
  out
    .u32(1)
    .u32(SHT_STRTAB)
    .word(0)
    .word(0)
    .word(headers + notes.length + memory)
    .word(sectionNames.length);

  out.at = programs;
  out.program(PT_NOTE, { offset: headers, address: 0, length: notes.length });
  let offset = headers + notes.length;
  for (const { address, length } of segments) {
    out.program(PT_LOAD, { offset, address, length });
    offset += length;
  }
  out.bytes.set(notes, headers);
  return out.bytes;
}

/** Encodes the notes of all CPUs. If the guest is not in long mode, they have 32-bit registers. */
export function encodeNotes(cpus: readonly CpuRegisters[], machine: number): Uint8Array {
  const isLong = machine === elfMachines.x86_64;
  const notes = [
    ...cpus.map((cpu) => encodeNote('CORE', NT_PRSTATUS, isLong ? encodePrstatus64(cpu) : encodePrstatus32(cpu))),
    ...cpus.map((cpu) => encodeNote('QEMU', 0, encodeCpuState(cpu))),
  ];
  const all = new Uint8Array(notes.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const note of notes) {
    all.set(note, at);
    at += note.length;
  }
  return all;
}

/** Name and content are padded to four bytes. */
function encodeNote(name: 'CORE' | 'QEMU', type: number, content: Uint8Array): Uint8Array {
  const out = new LittleEndian(12 + 8 + content.length, 32);
  out.u32(5).u32(content.length).u32(type);
  out.bytes.set(new TextEncoder().encode(name), 12);
  out.bytes.set(content, 20);
  return out.bytes;
}

function nameGeneral(general: readonly bigint[]): Record<(typeof generalNames)[number], bigint> {
  return Object.fromEntries(generalNames.map((name, i) => [name, general[i]])) as ReturnType<typeof nameGeneral>;
}

/** struct elf_prstatus of Linux on x86-64: only the process id, which is the CPU's number from 1, and the registers. */
function encodePrstatus64({ index, general, rip, rflags, segments }: CpuRegisters): Uint8Array {
  const { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, ...more } = nameGeneral(general);
  const { cs, ss, ds, es, fs, gs } = segments;
  const out = new LittleEndian(336, 64);
  out.at = 32;
  out.u32(index + 1);
  out.at = 112;
  const { r8, r9, r10, r11, r12, r13, r14, r15 } = more;
  out.u64s(r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi);
  out.u64s(0n, rip, BigInt(cs.selector), rflags, rsp, BigInt(ss.selector), fs.base, gs.base);
  out.u64s(...[ds, es, fs, gs].map(({ selector }) => BigInt(selector)));
  return out.bytes;
}

/** The same on i386. */
function encodePrstatus32({ index, general, rip, rflags, segments }: CpuRegisters): Uint8Array {
  const { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi } = nameGeneral(general);
  const low = (value: bigint) => Number(value & 0xffff_ffffn);
  const { cs, ss, ds, es, fs, gs } = segments;
  const out = new LittleEndian(144, 32);
  out.at = 24;
  out.u32(index + 1);
  out.at = 72;
  for (const value of [rbx, rcx, rdx, rsi, rdi, rbp, rax]) out.u32(low(value));
  for (const { selector } of [ds, es, fs, gs]) out.u32(selector & 0xffff);
  out
    .u32(0)
    .u32(low(rip))
    .u32(cs.selector & 0xffff)
    .u32(low(rflags))
    .u32(low(rsp))
    .u32(ss.selector & 0xffff);
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
  const out = new LittleEndian(cpuStateLength, 64);
  out.u32(1).u32(cpuStateLength);
  out.u64s(rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, ...general.slice(8), rip, rflags);
  for (const segment of [cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt]) out.segment(segment);
  out.u64s(cr0, 0n, cr2, cr3, cr4, kernelGsBase);
  return out.bytes;
}

/** Writes structures of a known size. */
class LittleEndian {
  readonly bytes: Uint8Array;
  at = 0;
  readonly #view: DataView;
  readonly #class: ElfClass;

  constructor(length: number, elfClass: ElfClass) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
    this.#class = elfClass;
  }

  u16(value: number): this {
    this.#view.setUint16(this.at, value, true);
    this.at += 2;
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.at, value, true);
    this.at += 4;
    return this;
  }

  u64s(...values: bigint[]): this {
    for (const value of values) {
      this.#view.setBigUint64(this.at, value, true);
      this.at += 8;
    }
    return this;
  }

  /** An address, an offset or a length, of the class's width. */
  word(value: number): this {
    return this.#class === 64 ? this.u64s(BigInt(value)) : this.u32(value);
  }

  /** A program header: the virtual address is the physical one, flags and alignment are 0. */
  program(type: number, { offset, address, length }: { offset: number; address: number; length: number }): void {
    this.u32(type);
    if (this.#class === 64) this.u32(0);
    this.word(offset).word(address).word(address).word(length).word(length);
    if (this.#class === 32) this.u32(0);
    this.word(0);
  }

  segment({ selector, limit, flags, base }: Segment): void {
    this.u32(selector).u32(limit).u32(flags).u32(0).u64s(base);
  }
}
