/** Facts about the whole guest that device states hold: its runstate and its timers (docs/formats/devices.md). */
import { type DeviceState, isStruct, type StateField, type StateStruct } from './device-state.ts';
import { listTypes, structTypes } from './field-types.ts';
import { findValue } from './find-value.ts';

/** The guest's runstate before QEMU stopped it for the migration (`running`, `paused`, …), from the device `globalstate`. */
export function readRunState(devices: readonly DeviceState[]): string | undefined {
  const state = devices.find(({ name }) => name === 'globalstate')?.state;
  const text = state === undefined ? undefined : findValue(state, 'runstate');
  if (!(text instanceof Uint8Array)) return undefined;
  const end = text.indexOf(0);
  return new TextDecoder().decode(end === -1 ? text : text.subarray(0, end));
}

/** A timer of a device. */
export interface DeviceTimer {
  field: StateField;
  /** When it fires, in nanoseconds of its clock; undefined if it is not armed. */
  expiry: number | bigint | undefined;
}

/** All timers of a state, in its order. */
export function* findTimers(state: StateStruct): Generator<DeviceTimer, void> {
  for (const field of state.fields) {
    if (field.type === 'timer') {
      const value = field.value;
      for (const each of Array.isArray(value) ? value : [value]) {
        if (typeof each === 'number' || typeof each === 'bigint')
          yield { field, expiry: each === -1 ? undefined : each };
      }
    } else if (structTypes.has(field.type) || listTypes.has(field.type)) {
      const value = field.value;
      for (const each of Array.isArray(value) ? value : [value]) if (isStruct(each)) yield* findTimers(each);
    }
  }
  for (const subsection of state.subsections) yield* findTimers(subsection);
}
