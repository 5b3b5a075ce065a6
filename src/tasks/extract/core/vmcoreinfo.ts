/**
 * The note that a guest's kernel leaves for its dumps (VMCOREINFO). The state of the device `vmcoreinfo` has its address
 * and size (docs/formats/elf-core.md, "VMCOREINFO"). QEMU copies it, whatever its name.
 */
import { toUnsigned } from '../../../devices/cpu-values.ts';
import type { DeviceState } from '../../../devices/device-state.ts';
import { findValue } from '../../../devices/find-value.ts';
import type { CoreFormat } from './struct-writer.ts';

/** A note for the dump: its bytes as they are in the guest, and where its content begins. */
export interface GuestNote {
  bytes: Uint8Array;
  name: string;
}

/** What a guest left: bytes for a note, or only QEMU's warning about ones that it would not read. */
export interface LeftNote {
  bytes?: Uint8Array;
  warning?: string;
}

/** A note, or only QEMU's warning about one that cannot be used. */
export interface FoundNote {
  note?: GuestNote;
  warning?: string;
}

/** Reads guest-physical memory. Where there is none, there are zeros. */
export type ReadPhysical = (address: bigint, length: number) => Promise<Uint8Array>;

const headLength = 12;
const maxNoteBytes = 1 << 20;
/** The only format that guests use. */
const formatElf = 1;

/** Reads what a guest left for its dumps, unchecked. */
export async function readLeftNote(devices: readonly DeviceState[], read: ReadPhysical): Promise<LeftNote> {
  const state = devices.find(({ name }) => name === 'vmcoreinfo')?.state;
  if (state === undefined || findValue(state, 'has_vmcoreinfo') !== true) return {};
  const number = (name: string) => toUnsigned(findValue(state, `vmcoreinfo.${name}`), name);
  const [format, size] = [Number(number('guest_format')), Number(number('size'))];
  if (format === 0) return { warning: 'guest note is not present' };
  if (format !== formatElf) return { warning: `guest note format is unsupported: ${format}` };
  if (size < headLength || size > maxNoteBytes) return { warning: `guest note size is invalid: ${size}` };
  return { bytes: await read(number('paddr'), size) };
}

/** Finds the note in what a guest left. */
export function findGuestNote({ bytes: left, warning }: LeftNote, format: CoreFormat): FoundNote {
  if (left === undefined) return warning === undefined ? {} : { warning };
  const view = new DataView(left.buffer, left.byteOffset, left.length);
  const [nameLength, length] = [0, 4].map((at) => view.getUint32(at, format.littleEndian)) as [number, number];
  const offset = headLength + padded(nameLength);
  const end = offset + padded(length);
  if (end > left.length) return { warning: 'Invalid guest note header' };
  const name = new TextDecoder('latin1').decode(left.subarray(headLength, headLength + nameLength));
  return { note: { bytes: left.slice(0, end), name: name.replace(/\0.*/s, '') } };
}

/** Not by bits: lengths may be any 32-bit number. */
const padded = (length: number): number => Math.ceil(length / 4) * 4;
