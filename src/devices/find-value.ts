/** Values of a device's state by their paths. */
import { isStruct, type StateField, type StateStruct, type StateValue } from './device-state.ts';

/**
 * Finds a value by its path: names as in the description, `[n]` for an element, `.` before a field of a struct, `/name`
 * for a subsection, with or without the name of its parent. Names may contain dots and brackets themselves; the longest
 * one that fits is used. Fields of the same name are the elements of one array. Undefined if there is no such value.
 *
 * @example
 * findValue(cpu, 'env.regs[4]');
 * findValue(cpu, '/env.xcr0');
 * findValue(timer, '/timer.cpu_clock');
 */
export function findValue(state: StateStruct, path: string): StateValue | undefined {
  if (path.startsWith('/')) return findSubsection(state, path.slice(1));
  const names = new Set(state.fields.map(({ name }) => name));
  for (const name of longestFirst(names, path)) {
    const found = findInside(
      valueOfFields(state.fields.filter((field) => field.name === name)),
      path.slice(name.length),
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

function findSubsection(state: StateStruct, path: string): StateValue | undefined {
  for (const subsection of state.subsections) {
    const { vmsdName } = subsection;
    const prefix = `${state.vmsdName}/`;
    const names = [vmsdName, ...(vmsdName.startsWith(prefix) ? [vmsdName.slice(prefix.length)] : [])];
    for (const name of longestFirst(names, path)) {
      const found = findInside(subsection, path.slice(name.length));
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

function longestFirst(names: Iterable<string>, path: string): string[] {
  return [...names].filter((name) => path.startsWith(name)).sort((a, b) => b.length - a.length);
}

/** The value of a field, or of all fields with its name. */
export function valueOfFields(fields: readonly StateField[]): StateValue {
  const [first] = fields as [StateField];
  if (fields.length === 1 && first.index === undefined) return first.value;
  if (fields.every(({ index }) => index === undefined)) return fields.flatMap(({ value }) => value);
  const values: StateValue[] = [];
  for (const { index = values.length, value } of fields) if (index <= fields.length) values[index] = value;
  return values;
}

function findInside(value: StateValue, rest: string): StateValue | undefined {
  if (rest === '') return value;
  const [index] = /^\[\d+\]/.exec(rest) ?? [];
  if (index !== undefined) {
    const element = Array.isArray(value) ? value[Number(index.slice(1, -1))] : undefined;
    return element === undefined ? undefined : findInside(element, rest.slice(index.length));
  }
  if (!isStruct(value)) return undefined;
  if (rest.startsWith('.')) return findValue(value, rest.slice(1));
  return rest.startsWith('/') ? findValue(value, rest) : undefined;
}
