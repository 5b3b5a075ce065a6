/** Numbers out of a CPU's state, by their paths. */
import type { StateStruct, StateValue } from './device-state.ts';
import { findValue } from './find-value.ts';

/** A register is missing, or has another type. */
export class BadCpuState extends Error {}

/** An integer of any size, as an unsigned one of 64 bits. @throws BadCpuState for anything else */
export function toUnsigned(value: StateValue | undefined, path: string): bigint {
  if (typeof value === 'bigint') return BigInt.asUintN(64, value);
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt.asUintN(64, BigInt(value));
  throw new BadCpuState(`expected ${path} as a number`);
}

/** One register. @throws BadCpuState */
export const readUnsigned = (state: StateStruct, path: string): bigint => toUnsigned(findValue(state, path), path);

/** An array of registers. @throws BadCpuState unless it has this many */
export function readAllUnsigned(state: StateStruct, path: string, count: number): bigint[] {
  const values = findValue(state, path);
  if (!Array.isArray(values) || values.length !== count) throw new BadCpuState(`expected ${path} as ${count} values`);
  return values.map((value, i) => toUnsigned(value, `${path}[${i}]`));
}

/** Whether a state has a subsection, by its name without that of the state. */
export const hasSubsection = (state: StateStruct, name: string): boolean =>
  state.subsections.some(({ vmsdName }) => vmsdName === `${state.vmsdName}/${name}`);
