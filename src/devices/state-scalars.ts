/**
 * Types of fields that hold one value of a fixed size (docs/formats/devices.md, "Types"). All numbers are big-endian on every
 * guest, except `le16`, `le32` and `le64`: this project's names for values that devices store as the guest sees them.
 */
type ScalarValue = number | bigint | boolean | null;

/** A type: its size in bytes, and how to read it. `view` covers the whole body. */
export interface Scalar {
  readonly size: number;
  read(view: DataView, at: number): ScalarValue;
}

/** A number if it is exact, otherwise a bigint. */
export function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

const int8: Scalar = { size: 1, read: (view, at) => view.getInt8(at) };
const int16: Scalar = { size: 2, read: (view, at) => view.getInt16(at) };
const int32: Scalar = { size: 4, read: (view, at) => view.getInt32(at) };
const int64: Scalar = { size: 8, read: (view, at) => exact(view.getBigInt64(at)) };
const uint8: Scalar = { size: 1, read: (view, at) => view.getUint8(at) };
const uint16: Scalar = { size: 2, read: (view, at) => view.getUint16(at) };
const uint32: Scalar = { size: 4, read: (view, at) => view.getUint32(at) };
const uint64: Scalar = { size: 8, read: (view, at) => exact(view.getBigUint64(at)) };

/** All types, by QEMU's names. */
export const scalars: ReadonlyMap<string, Scalar> = new Map<string, Scalar>([
  ['bool', { size: 1, read: (view, at) => view.getUint8(at) !== 0 }],
  ['int8', int8],
  ['int16', int16],
  ['int32', int32],
  ['int64', int64],
  ['uint8', uint8],
  ['uint16', uint16],
  ['uint32', uint32],
  ['uint64', uint64],
  // The receiver requires the same value, or one that is not larger (there, `le` means less or equal).
  ['uint8 equal', uint8],
  ['uint16 equal', uint16],
  ['int32 equal', int32],
  ['uint32 equal', uint32],
  ['int32 le', int32],
  // QEMU's only type for equal 64-bit numbers; its fields are unsigned.
  ['int64 equal', uint64],
  // The time at which it fires, in nanoseconds of its clock; -1 if it is not armed.
  ['timer', int64],
  // The bits, because a number would lose NaNs.
  ['float64', uint64],
  ['CPU_Double_U', uint64],
  // Registers that CPUs save with their own functions, as plain numbers.
  ['cpsr', uint32],
  ['fpscr', uint32],
  ['cpu/altivec/vscr', uint32],
  ['fpr', uint64],
  ['vsr', uint64],
  ['powered_off', { size: 1, read: (view, at) => view.getUint8(at) !== 0 }],
  ['nullptr', { size: 1, read: () => null }],
  ['le16', { size: 2, read: (view, at) => view.getUint16(at, true) }],
  ['le32', { size: 4, read: (view, at) => view.getUint32(at, true) }],
  ['le64', { size: 8, read: (view, at) => exact(view.getBigUint64(at, true)) }],
]);

/**
 * Types that a device reads and writes by its own function. A dump gives the size of the field in memory, which is not that
 * in the stream: 48 bytes of a timer for 8.
 */
export const sizedByMemory: ReadonlySet<string> = new Set([
  ...['timer', 'cpsr', 'fpscr', 'cpu/altivec/vscr', 'fpr', 'vsr', 'powered_off', 'nullptr'],
]);
