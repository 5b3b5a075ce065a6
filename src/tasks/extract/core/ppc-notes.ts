/** The notes of a 64-bit PowerPC CPU in a core file (docs/formats/elf-core.md, "PowerPC"), as Linux has them. */
import { BadCpuState, hasSubsection, readAllUnsigned, readUnsigned } from '../../../devices/cpu-values.ts';
import { isStruct, type StateStruct } from '../../../devices/device-state.ts';
import { findValue } from '../../../devices/find-value.ts';
import { type CoreFormat, type CoreNote, StructWriter } from './struct-writer.ts';

/** Numbers of special-purpose registers. */
const special = { xer: 1, lr: 8, ctr: 9, vrsave: 256, lpcr: 318, spefscr: 512 } as const;

/** The bit of LPCR with which interrupts run little-endian code. */
const interruptsLittleEndian = 0x0200_0000n;

const readSpecial = (cpu: StateStruct) => readAllUnsigned(cpu, 'env.spr', 1024);

/** Whether the guest's kernel is little-endian, by its first CPU. */
export function isLittleEndianPpc(cpu: StateStruct): boolean {
  return ((readSpecial(cpu)[special.lpcr] as bigint) & interruptsLittleEndian) !== 0n;
}

/** Notes of one CPU. `hasNumber`: with the number of the CPU, which QEMU 7.2 leaves out. */
export function ppcNotes(
  cpu: StateStruct,
  index: number,
  { format, hasNumber }: { format: CoreFormat; hasNumber: boolean },
): CoreNote[] {
  const structure = (length: number) => new StructWriter(length, format);
  const registers = readSpecial(cpu);
  const spr = (name: keyof typeof special) => registers[special[name]] as bigint;
  const status = structure(504)
    .to(32)
    .u32(hasNumber ? index + 1 : 0)
    .to(112);
  const condition = readAllUnsigned(cpu, 'env.crf', 8).reduce((sum, field) => (sum << 4n) | (field & 15n), 0n);
  status.u64(...readAllUnsigned(cpu, 'env.gpr', 32), readUnsigned(cpu, 'env.nip'), readUnsigned(cpu, 'env.msr'), 0n);
  status.u64(spr('ctr'), spr('lr'), spr('xer'), condition);

  const float = structure(264);
  if (hasSubsection(cpu, 'fpu')) {
    float.u64(...readAllUnsigned(cpu, '/fpu.env.vsr', 32), readUnsigned(cpu, '/fpu.env.fpscr'));
  }
  const vector = structure(544);
  if (hasSubsection(cpu, 'altivec')) {
    for (const value of readVectors(cpu)) vector.u128(value);
    vector.u128({ high: 0n, low: readUnsigned(cpu, '/altivec.vscr') }).u64(spr('vrsave'));
  }
  const scalar = structure(256);
  if (hasSubsection(cpu, 'vsx')) scalar.u64(...readAllUnsigned(cpu, '/vsx.env.vsr', 32));
  const signal = structure(140).to(128);
  signal.u64(readUnsigned(cpu, 'env.spe_acc')).u32(spr('spefscr'));
  const types = { 1: status, 2: float, 256: vector, 258: scalar, 257: signal };
  const order = [1, 2, 256, 258, 257] as const;
  return order.map((type) => ({ name: 'CORE', type, content: types[type].bytes }));
}

function readVectors(cpu: StateStruct): { high: bigint; low: bigint }[] {
  const vectors = findValue(cpu, '/altivec.env.vsr');
  if (!Array.isArray(vectors) || vectors.length !== 32) throw new BadCpuState('expected env.vsr as 32 vectors');
  return vectors.map((value) => {
    if (!isStruct(value)) throw new BadCpuState('expected env.vsr as vectors');
    return { high: readUnsigned(value, 'high'), low: readUnsigned(value, 'low') };
  });
}
