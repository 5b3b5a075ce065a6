/** The note of a 64-bit RISC-V CPU in a core file (docs/formats/elf-core.md, "RISC-V"), as Linux has it. */
import { readAllUnsigned, readUnsigned } from '../../../devices/cpu-values.ts';
import type { StateStruct } from '../../../devices/device-state.ts';
import { type CoreNote, StructWriter } from './struct-writer.ts';

/** The program counter, then x1 to x31. */
export function riscvNotes(cpu: StateStruct, index: number): CoreNote[] {
  const status = new StructWriter(376, { elfClass: 64, littleEndian: true })
    .to(32)
    .u32(index + 1)
    .to(112);
  status.u64(readUnsigned(cpu, 'env.pc'), ...readAllUnsigned(cpu, 'env.gpr', 32).slice(1));
  return [{ name: 'CORE', type: 1, content: status.bytes }];
}
