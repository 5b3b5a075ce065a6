/**
 * ELF core files as QEMU's `dump-guest-memory` writes them (docs/formats/elf-core.md), in the byte order of the guest:
 *
 *     ELF header       64 bytes (ELF64), 52 (ELF32); ET_CORE
 *     section headers  a null one, and .shstrtab: little-endian, whatever the guest is
 *     program headers  a PT_NOTE, then a PT_LOAD for each range of memory, or for each of its mappings
 *     notes            the registers of every CPU
 *     memory           the ranges, one after the other
 *     "\0.shstrtab\0"
 */
import type { VirtualSegment } from '../../addresses/virtual-segments.ts';
import { type CoreFormat, StructWriter } from './struct-writer.ts';

/** Memory in the core. Lengths are in bytes. */
export interface CoreSegment {
  /** Guest-physical address. */
  address: number;
  length: number;
}

/** A core file without its memory. */
export interface CoreHeader {
  format: CoreFormat;
  /** e_machine. */
  machine: number;
  notes: Uint8Array;
  segments: readonly CoreSegment[];
  /** Virtual memory that lies in the segments. Without it, a program header has the guest-physical address for the virtual one. */
  mapped?: readonly VirtualSegment[];
}

/** The bytes after the memory: the names of the sections. */
export const sectionNames = new TextEncoder().encode('\0.shstrtab\0');

/** From this number of program headers on, the count is elsewhere: in sh_info of the null section. */
const PN_XNUM = 0xffff;

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

/** Bytes before the memory. */
export function coreHeaderLength({ format, notes, segments, mapped }: CoreHeader): number {
  const { header, section, program } = layouts[format.elfClass];
  return header + 2 * section + ((mapped ?? segments).length + 1) * program + notes.length;
}

/** Everything before the memory. */
export function encodeCoreHeader(core: CoreHeader): Uint8Array {
  const { format, machine, notes, segments, mapped } = core;
  const { elfClass, littleEndian } = format;
  const sizes = layouts[elfClass];
  const headers = coreHeaderLength(core) - notes.length;
  const memory = segments.reduce((sum, { length }) => sum + length, 0);
  const out = new StructWriter(headers + notes.length, format);
  out.bytes.set([0x7f, 0x45, 0x4c, 0x46, elfClass === 64 ? 2 : 1, littleEndian ? 1 : 2, 1]);
  out.at = 16;
  const programs = sizes.header + 2 * sizes.section;
  out.u16(ET_CORE, machine).u32(1).word(0, programs, sizes.header).u32(0);
  const count = (mapped ?? segments).length + 1;
  out.u16(statedHeaderLength, sizes.program, Math.min(count, PN_XNUM), sizes.section, 2, 1);

  const sections = new StructWriter(2 * sizes.section, { elfClass, littleEndian: true });
  sections.at = elfClass === 64 ? 44 : 28;
  if (count >= PN_XNUM) sections.u32(count);
  // The second section: name, type, flags, address, offset, size.
  sections.at = sizes.section;
  sections.u32(1, SHT_STRTAB).word(0, 0, headers + notes.length + memory, sectionNames.length);
  out.bytes.set(sections.bytes, sizes.header);

  out.at = programs;
  writeProgram(out, format, PT_NOTE, { offset: headers, virtual: 0, physical: 0, length: notes.length });
  for (const program of locate(core, headers + notes.length)) writeProgram(out, format, PT_LOAD, program);
  out.bytes.set(notes, headers);
  return out.bytes;
}

/** What a program header says. */
interface Program {
  offset: number;
  virtual: number | bigint;
  physical: number;
  length: number;
}

/** The program headers of memory that begins at an offset in the file. */
function* locate({ segments, mapped }: CoreHeader, start: number): Generator<Program, void> {
  if (mapped === undefined) {
    let offset = start;
    for (const { address, length } of segments) {
      yield { offset, virtual: address, physical: address, length };
      offset += length;
    }
    return;
  }
  // Both are ascending by their guest-physical addresses, and each mapping lies in one segment.
  let at = 0;
  let offset = start;
  for (const { virtual, physical, length } of mapped) {
    for (let segment = segments[at]; segment !== undefined; segment = segments[++at]) {
      if (physical < segment.address + segment.length) break;
      offset += segment.length;
    }
    const { address } = segments[at] as CoreSegment;
    yield { offset: offset + physical - address, virtual, physical, length };
  }
}

/** A program header: flags and alignment are 0. */
function writeProgram(out: StructWriter, { elfClass }: CoreFormat, type: number, program: Program): void {
  const { offset, virtual, physical, length } = program;
  out.u32(type);
  if (elfClass === 64) out.u32(0);
  out.word(offset, virtual, physical, length, length);
  if (elfClass === 32) out.u32(0);
  out.word(0);
}
