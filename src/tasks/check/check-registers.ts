/**
 * Lists of CPU registers (docs/check.md, "CPU registers"): an array of indexes, and an array of the values. The target looks
 * for each index of the file in its own list. It refuses one that it does not have. Registers that only it has keep their
 * values.
 */
import type { StateStruct } from '../../devices/device-state.ts';
import { listRegisters } from '../../devices/register-list.ts';

/** The indexes that only the file has; undefined if one of the two lists cannot be read. */
export function findUnknownRegisters(mine: StateStruct, theirs: StateStruct, list: string): bigint[] | undefined {
  const [file, target] = [listRegisters(mine, list), listRegisters(theirs, list)];
  if (file === undefined || target === undefined) return undefined;
  return [...file.keys()].filter((index) => !target.has(index));
}
