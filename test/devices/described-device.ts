/** Makes devices from plain values: a description, and a body that fits it. */

import { type DeviceState, decodeDevice } from '../../src/devices/device-state.ts';
import type { FieldDescription, StateDescription } from '../../src/vm/description.ts';

/**
 * A number is a uint32, a bigint a uint64, bytes a buffer, an object a struct. An array has elements of the kind of its
 * first.
 */
export type Plain = number | bigint | Uint8Array | PlainStruct | readonly Plain[];
export interface PlainStruct {
  [name: string]: Plain;
}

export function describedDevice(name: string, values: PlainStruct, instanceId = 0): DeviceState {
  const { description, bytes } = struct(values);
  const section = {
    ...({ kind: 'full', id: 7, name, instanceId, versionId: 1, offset: 1000, length: bytes.length + 30 } as const),
    ...({ packaged: false, data: Uint8Array.from(bytes), boundary: 'description' } as const),
  };
  return decodeDevice(section, { ...description, name, instanceId });
}

function struct(values: PlainStruct): { description: StateDescription; bytes: number[] } {
  const made = Object.entries(values).map(([name, value]) => field(name, value));
  return {
    description: { vmsdName: 'test', version: 1, fields: made.map((each) => each.field), subsections: [] },
    bytes: made.flatMap(({ bytes }) => bytes),
  };
}

function field(name: string, value: Plain): { field: FieldDescription; bytes: number[] } {
  const plain = { name, arrayLength: undefined, index: undefined, nested: [] };
  if (Array.isArray(value)) {
    const made = value.map((each: Plain) => field(name, each));
    const first = made[0]?.field as FieldDescription;
    return { field: { ...first, arrayLength: value.length }, bytes: made.flatMap(({ bytes }) => bytes) };
  }
  if (value instanceof Uint8Array)
    return { field: { ...plain, type: 'buffer', size: value.length }, bytes: [...value] };
  if (typeof value === 'object') {
    const { description, bytes } = struct(value as PlainStruct);
    return { field: { ...plain, type: 'struct', size: bytes.length, nested: [description] }, bytes };
  }
  const size = typeof value === 'bigint' ? 8 : 4;
  const bytes = Array.from({ length: size }, (_, i) => Number((BigInt(value) >> BigInt(8 * (size - 1 - i))) & 0xffn));
  return { field: { ...plain, type: size === 8 ? 'uint64' : 'uint32', size }, bytes };
}
