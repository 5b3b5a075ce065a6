/** The notes of a CPU of s390x in a core file (docs/formats/elf-core.md, "s390x"), as Linux has them. */
import { hasSubsection, readAllUnsigned, readUnsigned } from '../../../devices/cpu-values.ts';
import type { StateStruct } from '../../../devices/device-state.ts';
import { type CoreFormat, type CoreNote, StructWriter } from './struct-writer.ts';

export const s390xFormat: CoreFormat = { elfClass: 64, littleEndian: false };

/** Notes of one CPU. `swapsNumber`: the number of the CPU has the bytes of the host's order, as QEMU 7.2 writes it. */
export function s390xNotes(cpu: StateStruct, index: number, { swapsNumber }: { swapsNumber: boolean }): CoreNote[] {
  const number = index + 1;
  const structure = (length: number) => new StructWriter(length, s390xFormat);
  const status = structure(336).to(32);
  status.u32(swapsNumber ? new DataView(Uint32Array.of(number).buffer).getUint32(0) : number);
  status.to(112).u64(readUnsigned(cpu, 'env.psw.mask'), readUnsigned(cpu, 'env.psw.addr'));
  status.u64(...readAllUnsigned(cpu, 'env.regs', 16)).u32(...readAllUnsigned(cpu, 'env.aregs', 16));

  const half = (first: number, side: 0 | 1) =>
    Array.from({ length: 16 }, (_, i) => {
      const name = `env.vregs[${first + i}][${side}]`;
      if (first === 0 && side === 0) return readUnsigned(cpu, `/fpu.${name}`);
      return hasSubsection(cpu, 'vregs') ? readUnsigned(cpu, `/vregs.${name}`) : 0n;
    });
  const float = structure(136).u32(readUnsigned(cpu, '/fpu.env.fpc')).to(8);
  float.u64(...half(0, 0));
  const upper = half(16, 0);
  const guarded = hasSubsection(cpu, 'gscb') ? readAllUnsigned(cpu, '/gscb.env.gscb', 4) : [];
  const linux = (type: number, { bytes }: StructWriter): CoreNote => ({ name: 'LINUX', type, content: bytes });
  return [
    { name: 'CORE', type: 1, content: status.bytes },
    { name: 'CORE', type: 2, content: float.bytes },
    linux(0x305, structure(4).u32(readUnsigned(cpu, 'env.psa'))),
    linux(0x304, structure(128).u64(...readAllUnsigned(cpu, 'env.cregs', 16))),
    linux(0x301, structure(8).u64(readUnsigned(cpu, 'env.cputm'))),
    linux(0x302, structure(8).u64(readUnsigned(cpu, 'env.ckc'))),
    linux(0x303, structure(4).u32(readUnsigned(cpu, 'env.todpr'))),
    linux(0x309, structure(128).u64(...half(0, 1))),
    linux(0x30a, structure(256).u64(...half(16, 1).flatMap((low, i) => [upper[i] as bigint, low]))),
    linux(0x30b, structure(32).u64(...guarded)),
  ];
}
