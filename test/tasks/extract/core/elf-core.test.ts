import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CpuRegisters, Segment } from '../../../../src/devices/cpu-registers.ts';
import { coreHeaderLength, encodeCoreHeader, sectionNames } from '../../../../src/tasks/extract/core/elf-core.ts';
import { encodeNotes } from '../../../../src/tasks/extract/core/struct-writer.ts';
import { chooseX86Core, x86Notes } from '../../../../src/tasks/extract/core/x86-notes.ts';
import { decodeCore } from './decode-core.ts';

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const u32 = fc.nat(2 ** 32 - 1);
const segment: fc.Arbitrary<Segment> = fc.record({ selector: fc.nat(0xffff), base: u64, limit: u32, flags: u32 });
const segmentNames = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'ldt', 'tr', 'gdt', 'idt'] as const;
const cpus = fc.record({
  index: fc.nat(4095),
  general: fc.array(u64, { minLength: 16, maxLength: 16 }),
  ...{ rip: u64, rflags: u64, cr0: u64, cr2: u64, cr3: u64, cr4: u64, efer: u64, kernelGsBase: u64 },
  segments: fc.record(
    Object.fromEntries(segmentNames.map((name) => [name, segment])) as Record<
      (typeof segmentNames)[number],
      typeof segment
    >,
  ),
}) as fc.Arbitrary<CpuRegisters>;

const nothing: Segment = { selector: 0, base: 0n, limit: 0, flags: 0 };
const plain = (index: number, efer = 0x500n): CpuRegisters => ({
  index,
  general: new Array(16).fill(0n),
  ...{ rip: 0n, rflags: 2n, cr0: 0n, cr2: 0n, cr3: 0n, cr4: 0n, efer, kernelGsBase: 0n },
  segments: Object.fromEntries(segmentNames.map((name) => [name, nothing])) as CpuRegisters['segments'],
});

/** A core without its memory, which is not needed. */
function encode(list: readonly CpuRegisters[], segments: { address: number; length: number }[]) {
  const { format, machine } = chooseX86Core(list, segments);
  const core = { format, machine, notes: encodeNotes(x86Notes(list, machine), format), segments };
  const header = encodeCoreHeader(core);
  expect(header.length).toBe(coreHeaderLength(core));
  return header;
}

/** e_machine. */
const [machineI386, machineX86_64] = [3, 62];
/** The most segments that e_phnum can state, besides the notes. */

describe('a core file', () => {
  it('has a note segment and one for each range, one after the other', () => {
    const lengths = fc.array(fc.tuple(fc.nat(2 ** 20), fc.integer({ min: 1, max: 2 ** 20 })), { maxLength: 20 });
    fc.assert(
      fc.property(lengths, fc.array(cpus, { minLength: 1, maxLength: 4 }), (list, registers) => {
        let end = 0;
        const segments = list.map(([gap, length]) => {
          const address = end + gap;
          end = address + length;
          return { address, length };
        });
        const header = encode(registers, segments);
        const memory = segments.reduce((sum, { length }) => sum + length, 0);
        const whole = new Uint8Array(header.length + memory + sectionNames.length);
        whole.set(header);
        whole.set(sectionNames, header.length + memory);
        const core = decodeCore(whole);
        expect(core.type).toBe(4);
        let offset = header.length;
        for (const [i, { address, length }] of segments.entries()) {
          const expected = { type: 1, offset, virtual: BigInt(address), physical: address, length, inMemory: length };
          expect(core.segments[i + 1]).toEqual(expected);
          offset += length;
        }
        expect(core.segments.length).toBe(segments.length + 1);
        expect(core.sections.map(({ name }) => name)).toEqual(['', '.shstrtab']);
        expect(core.notes.map(({ name, type }) => [name, type])).toEqual([
          ...registers.map(() => ['CORE', 1]),
          ...registers.map(() => ['QEMU', 0]),
        ]);
      }),
    );
  });

  it.each([
    ['64 in long mode', 0x500n, 0x1000, 64, machineX86_64],
    ['32 otherwise', 0n, 0x1000, 32, machineI386],
    ['64 with memory up to 4 GiB', 0n, 2 ** 32 - 4096, 64, machineI386],
    ['32 just below', 0n, 2 ** 32 - 4097, 32, machineI386],
  ])('is of class %s', (_, efer, address, elfClass, machine) => {
    const core = decodeCore(
      join(encode([plain(0, efer)], [{ address, length: 4096 }]), new Uint8Array(4096), sectionNames),
    );
    expect([core.elfClass, core.machine]).toEqual([elfClass, machine]);
    expect(core.segments[1]?.physical).toBe(address);
  });

  it('has the registers in the notes, at their offsets', () => {
    fc.assert(
      fc.property(cpus, (cpu) => {
        const long = { ...cpu, efer: 0x500n };
        const [status, state] = notesOf(long);
        const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, , , , , , , r15] = cpu.general;
        const { cs, ss, fs, gs, tr, idt } = cpu.segments;
        expect([status?.length, state?.length]).toEqual([336, 440]);
        expect(status?.readUInt32LE(32)).toBe(cpu.index + 1);
        const words = (of: Buffer | undefined, ...at: number[]) => at.map((n) => of?.readBigUInt64LE(n));
        expect(words(status, 112, 112 + 8 * 10, 112 + 8 * 14)).toEqual([r15, rax, rdi]);
        expect(words(status, 112 + 8 * 16, 112 + 8 * 19, 112 + 8 * 21, 112 + 8 * 22)).toEqual([
          cpu.rip,
          rsp,
          fs.base,
          gs.base,
        ]);
        expect(words(status, 112 + 8 * 17, 112 + 8 * 20)).toEqual([BigInt(cs.selector), BigInt(ss.selector)]);
        expect([state?.readUInt32LE(0), state?.readUInt32LE(4)]).toEqual([1, 440]);
        expect(words(state, 8, 16, 24, 32, 40, 48, 56, 64, 72)).toEqual([rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8]);
        expect(words(state, 136, 144)).toEqual([cpu.rip, cpu.rflags]);
        const at = (index: number) => 152 + 24 * index;
        expect([state?.readUInt32LE(at(0)), state?.readUInt32LE(at(0) + 4), state?.readUInt32LE(at(0) + 8)]).toEqual([
          cs.selector,
          cs.limit,
          cs.flags,
        ]);
        expect(words(state, at(7) + 16, at(9) + 16)).toEqual([tr.base, idt.base]);
        expect(words(state, 392, 400, 408, 416, 424, 432)).toEqual([
          cpu.cr0,
          0n,
          cpu.cr2,
          cpu.cr3,
          cpu.cr4,
          cpu.kernelGsBase,
        ]);

        const [small] = notesOf({ ...cpu, efer: 0n });
        const halves = (...list: number[]) => list.map((n) => small?.readUInt32LE(n));
        const low = (value: bigint | undefined) => Number((value as bigint) & 0xffff_ffffn);
        expect(small?.length).toBe(144);
        expect(halves(24, 72, 76, 80, 84, 88, 92, 96)).toEqual([
          cpu.index + 1,
          ...[rbx, rcx, rdx, rsi, rdi, rbp, rax].map(low),
        ]);
        expect(halves(120, 124, 128, 132, 136)).toEqual([
          low(cpu.rip),
          cs.selector,
          low(cpu.rflags),
          low(rsp),
          ss.selector,
        ]);
      }),
    );
  });

  it('has the notes of a thousand CPUs', () => {
    const many = Array.from({ length: 1000 }, (_, i) => plain(i));
    const { notes } = decodeCore(join(encode(many, [{ address: 0, length: 1 }]), new Uint8Array(1), sectionNames));
    expect(notes.length).toBe(2000);
    expect(notes[999]?.content.readUInt32LE(32)).toBe(1000);
  });

  it('counts its program headers in a section where 16 bits are not enough', () => {
    const segments = Array.from({ length: 0xffff }, (_, i) => ({ address: 2 * i, length: 1 }));
    for (const count of [0xfffd, 0xfffe, 0xffff]) {
      const header = encode([plain(0)], segments.slice(0, count));
      const whole = join(header, new Uint8Array(count), sectionNames);
      expect(new DataView(whole.buffer, whole.byteOffset).getUint16(56, true)).toBe(Math.min(0xffff, count + 1));
      expect(decodeCore(whole).segments).toHaveLength(count + 1);
    }
  });
});

function notesOf(cpu: CpuRegisters): Buffer[] {
  const whole = join(encode([cpu], [{ address: 0, length: 1 }]), new Uint8Array(1), sectionNames);
  return decodeCore(whole).notes.map(({ content }) => content);
}

function join(...parts: Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}
