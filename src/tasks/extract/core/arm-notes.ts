/** The notes of ARM CPUs in a core file (docs/formats/elf-core.md, "ARM"), as Linux has them: 64-bit and 32-bit. */
import { BadCpuState, hasSubsection, readAllUnsigned, readUnsigned } from '../../../devices/cpu-values.ts';
import type { StateStruct } from '../../../devices/device-state.ts';
import { armRegisters, listRegisters } from '../../../devices/register-list.ts';
import { type CoreFormat, type CoreNote, StructWriter } from './struct-writer.ts';

const [NT_PRSTATUS, NT_FPREGSET, NT_ARM_VFP, NT_ARM_SVE] = [1, 2, 0x400, 0x405] as const;
const format32: CoreFormat = { elfClass: 32, littleEndian: true };

/** The index of FPCR, which only the 64-bit architecture has. */
const floatControl = 0x6030_0000_0013_da20n;

/** Whether a CPU has the 64-bit architecture, whatever it executes now. */
export function isArm64(cpu: StateStruct): boolean {
  return systemRegisters(cpu).has(floatControl);
}

/** System registers, by QEMU's indexes. */
function systemRegisters(cpu: StateStruct): ReadonlyMap<bigint, bigint> {
  const registers = listRegisters(cpu, armRegisters);
  if (registers === undefined) throw new BadCpuState('expected system registers with different indexes');
  return registers;
}

/** The vector registers Z0 to Z31, their low 128 bits as two words. */
const vectorsOf = (cpu: StateStruct): bigint[][] =>
  Array.from({ length: 32 }, (_, i) => readAllUnsigned(cpu, `/vfp.env.vfp.zregs[${i}].d`, 2));

const [statusBits, controlBits] = [0xf800_009fn, 0x07ff_9f00n];

/** FPSR and FPCR. */
function floatState(cpu: StateStruct): [bigint, bigint] {
  const both = readUnsigned(cpu, '/vfp.fpscr');
  return [both & statusBits, both & controlBits];
}

/** Notes of one CPU of the 64-bit architecture. */
export function arm64Notes(cpu: StateStruct, index: number, format: CoreFormat): CoreNote[] {
  const status = new StructWriter(392, format)
    .to(32)
    .u32(index + 1)
    .to(112);
  const { registers, pc, state } = generalRegisters(cpu);
  status.u64(...registers, pc, state).u32(1);
  const float = new StructWriter(528, format);
  for (const [low = 0n, high = 0n] of vectorsOf(cpu)) float.u128({ low, high });
  float.u32(...floatState(cpu));
  const notes: CoreNote[] = [
    { name: 'CORE', type: NT_PRSTATUS, content: status.bytes },
    { name: 'CORE', type: NT_FPREGSET, content: float.bytes },
  ];
  if (hasSubsection(cpu, 'sve')) notes.push({ name: 'LINUX', type: NT_ARM_SVE, content: encodeVectors(cpu, format) });
  return notes;
}

/** X0 to X30 and SP, the program counter and the processor state. */
function generalRegisters(cpu: StateStruct): { registers: bigint[]; pc: bigint; state: bigint } {
  const state = readUnsigned(cpu, 'cpsr');
  const isWide = (state & 0x10n) === 0n;
  if (isWide) return { registers: readAllUnsigned(cpu, 'env.xregs', 32), pc: readUnsigned(cpu, 'env.pc'), state };
  // The architecture says where 64-bit code finds the registers of 32-bit code.
  const visible = readAllUnsigned(cpu, 'env.regs', 16);
  const mode = Number(state & 0xfn);
  const banked = (path: string, place: number) => readAllUnsigned(cpu, `env.banked_${path}`, 8)[place] as bigint;
  const isFiq = mode === 1;
  const other = readAllUnsigned(cpu, isFiq ? 'env.usr_regs' : 'env.fiq_regs', 5);
  const [user, fiq] = isFiq ? [other, visible.slice(8, 13)] : [visible.slice(8, 13), other];
  const at = (place: number, modes: readonly number[]) => {
    const isCurrent = modes.includes(mode);
    return [
      isCurrent ? (visible[14] as bigint) : banked('r14', place),
      isCurrent ? (visible[13] as bigint) : banked('r13', place),
    ] as const;
  };
  const [lr, sp] = at(0, [0, 15]);
  const hyp = mode === 10 ? (visible[13] as bigint) : banked('r13', 6);
  const modes = [at(4, [2]), at(1, [3]), at(2, [7]), at(3, [11])].flat();
  const [fiqLr, fiqSp] = at(5, [1]);
  const registers = [...visible.slice(0, 8), ...user, sp, lr, hyp, ...modes, ...fiq, fiqSp, fiqLr];
  return {
    registers: [...registers, readAllUnsigned(cpu, 'env.xregs', 32)[31] as bigint],
    pc: visible[15] as bigint,
    state,
  };
}

/** The indexes of ZCR_EL1, ZCR_EL2 and ZCR_EL3. */
const vectorControls = [0x6030_0000_0013_c090n, 0x6030_0000_0013_e090n, 0x6030_0000_0013_f090n];
/** The longest vectors, in units of 128 bits. */
const maxVectors = 16;

/**
 * The SVE state, as long as the vectors are now by the control registers. The longest vectors of the CPU are not in the
 * stream: those of the A64FX have 512 bits, and otherwise 2048 bits are assumed.
 */
function encodeVectors(cpu: StateStruct, format: CoreFormat): Uint8Array {
  const system = systemRegisters(cpu);
  const level = Number((readUnsigned(cpu, 'cpsr') >> 2n) & 3n);
  const most = isA64fx(system) ? 4 : maxVectors;
  // A control register applies to its exception level and those below.
  const limits = vectorControls.slice(Math.max(1, level) - 1).flatMap((index) => {
    const value = system.get(index);
    return value === undefined ? [] : [Number(value & 15n) + 1];
  });
  const count = Math.min(most, ...limits);
  const low = vectorsOf(cpu);
  const out = new StructWriter(vectorLength(count), format);
  out.u32(vectorLength(count), vectorLength(most)).u16(16 * count, 16 * most, 1, 0);
  for (const [i, words] of low.entries()) {
    // The stream has no more than 1024 bits of a vector.
    const all = [...words, ...readAllUnsigned(cpu, `/sve.env.vfp.zregs[${i}].d`, 14)];
    out.u64(...Array.from({ length: 2 * count }, (_, word) => all[word] ?? 0n));
  }
  // 16 predicates and the first-fault register: a bit for each byte of a vector.
  for (let i = 0; i < 17; i++) {
    const words = readAllUnsigned(cpu, `/sve.env.vfp.pregs[${i}].p`, 4);
    const bytes = new StructWriter(32, format).u64(...words).bytes;
    out.raw(bytes.subarray(0, 2 * count));
  }
  out.to(out.bytes.length - 16).u32(...floatState(cpu));
  return out.bytes;
}

/** The header, 32 vectors, 16 predicates, the first-fault register, FPSR and FPCR. */
function vectorLength(count: number): number {
  const predicates = 16 + 32 * 16 * count + 17 * 2 * count;
  return predicates + (-predicates & 15) + 16;
}

const mainId = 0x6030_0000_0013_c000n;
const isA64fx = (system: ReadonlyMap<bigint, bigint>) => (system.get(mainId) ?? 0n) >> 4n === 0x461f001n;

/** Notes of one CPU of the 32-bit architecture. */
export function arm32Notes(cpu: StateStruct, index: number): CoreNote[] {
  const status = new StructWriter(148, format32)
    .to(24)
    .u32(index + 1)
    .to(72);
  status.u32(...readAllUnsigned(cpu, 'env.regs', 16), readUnsigned(cpu, 'cpsr'), 0).u32(1);
  const notes: CoreNote[] = [{ name: 'CORE', type: NT_PRSTATUS, content: status.bytes }];
  if (!hasSubsection(cpu, 'vfp')) return notes;
  const float = new StructWriter(260, format32);
  const doubles = vectorsOf(cpu).slice(0, 16).flat();
  float.u64(...doubles).u32(readUnsigned(cpu, '/vfp.fpscr'));
  return [...notes, { name: 'LINUX', type: NT_ARM_VFP, content: float.bytes }];
}
