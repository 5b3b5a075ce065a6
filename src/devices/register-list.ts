/**
 * Registers of a CPU that its state lists by number: `cpreg_vmstate_indexes` has the numbers, and `cpreg_vmstate_values`
 * the values in the same order (ARM).
 */
import type { StateStruct } from './device-state.ts';
import { valueOfFields } from './find-value.ts';

/** The list with the system registers of an ARM CPU. */
export const armRegisters = 'cpreg_vmstate';

const suffixes = ['_indexes', '_values'] as const;

/** `cpreg_vmstate` for both of its arrays; undefined for other fields. */
export function registerListName(field: string): string | undefined {
  const suffix = suffixes.find((each) => field.endsWith(each));
  return suffix === undefined ? undefined : field.slice(0, -suffix.length);
}

/** Values by number, in the order of the state. Undefined if the state has no such list. */
export function listRegisters(state: StateStruct, list: string): Map<bigint, bigint> | undefined {
  const [indexes, values] = suffixes.map((suffix) => toNumbers(state, `${list}${suffix}`));
  if (indexes === undefined || values === undefined || indexes.length !== values.length) return undefined;
  const registers = new Map(indexes.map((index, i) => [index, values[i] as bigint]));
  return registers.size === indexes.length ? registers : undefined;
}

function toNumbers(state: StateStruct, name: string): bigint[] | undefined {
  const fields = state.fields.filter((field) => field.name === name);
  if (fields.length === 0) return undefined;
  const value = valueOfFields(fields);
  const list = Array.isArray(value) ? value : [value];
  const isNumber = (each: unknown): each is number | bigint => typeof each === 'number' || typeof each === 'bigint';
  return list.every(isNumber) ? list.map((each) => BigInt.asUintN(64, BigInt(each))) : undefined;
}
