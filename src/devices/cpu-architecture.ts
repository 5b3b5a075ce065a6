/** The architecture of a machine, by the state of its first CPU. A stream does not name it. */
import type { DeviceState, StateStruct } from './device-state.ts';
import { findValue } from './find-value.ts';

/** A family of CPUs whose state vmferry tells apart. */
export type Architecture = 'x86' | 'arm' | 'riscv' | 's390x' | 'ppc';

/** A field that only the CPUs of this family have. */
const marks: readonly [Architecture, string][] = [
  ['x86', 'env.cr[0]'],
  ['arm', 'cpreg_vmstate_indexes'],
  ['riscv', 'env.satp'],
  ['s390x', 'env.psw.mask'],
  ['ppc', 'env.nip'],
];

/** Undefined if there is no CPU, or none that can be read. */
export function architectureOf(devices: readonly Pick<DeviceState, 'name' | 'state'>[]): Architecture | undefined {
  const state = devices.find(({ name }) => name === 'cpu')?.state;
  return state === undefined ? undefined : architectureOfCpu(state);
}

/** Undefined for a CPU of another family. */
export function architectureOfCpu(cpu: StateStruct): Architecture | undefined {
  return marks.find(([, path]) => findValue(cpu, path) !== undefined)?.[0];
}
