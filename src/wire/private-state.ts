/**
 * Fields whose type only their device knows (docs/formats/devices.md, "Types of devices' own"): from the bytes, a
 * description as QEMU would have given it. So they are decoded, shown and found as all others.
 */
import type { StateDescription } from './device-description.ts';

/** A field of such a type. */
export interface PrivateField {
  type: string;
  /** `vmsd_name` of the description that the field is in. */
  vmsdName: string;
  /** Its bytes. */
  bytes: DataView;
}

/** Undefined: the type is not known, or the bytes are not what it has. */
export function describePrivate(_field: PrivateField): StateDescription | undefined {
  return undefined;
}
