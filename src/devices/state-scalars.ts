/**
 * The types of fields that stand for one value of a fixed size (docs/formats/devices.md, "Types"). All numbers are
 * big-endian, whatever the guest, but those of `le…`: words of this project for what devices keep as the guest sees it.
 */
export type ScalarValue = number | bigint | boolean | null;

/** One type: how many bytes it takes, and what they say. `view` covers all of the bytes. */
export interface Scalar {
  readonly size: number;
  read(view: DataView, at: number): ScalarValue;
}

/** A number where it is exact, else a bigint. */
function exact(value: bigint): number | bigint {
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
  // The receiver insists on the same value, or one that is not larger (`le` is no byte order there).
  ['uint8 equal', uint8],
  ['uint16 equal', uint16],
  ['int32 equal', int32],
  ['uint32 equal', uint32],
  ['int32 le', int32],
  // The only type for equal 64-bit numbers: QEMU's fields of it are unsigned.
  ['int64 equal', uint64],
  // Nanoseconds of the clock at which it fires; -1: it is not armed.
  ['timer', int64],
  // As bits: a number would lose NaNs.
  ['float64', uint64],
  ['CPU_Double_U', uint64],
  // Registers that CPUs write in a way of their own, which is that of a plain number.
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
