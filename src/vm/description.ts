/** The VM description that QEMU appends to a stream, as types (docs/formats/devices.md, "The description"). */

/** The member of the JSON that marks an incomplete file. QEMU ignores it, as it ignores the whole description. */
export const incompleteKey = 'vmferry_incomplete';

/** QEMU's description of all device sections. */
export interface VmDescription {
  /** Target page size in bytes, if stated plausibly. */
  pageSize: number | undefined;
  configuration: StateDescription | undefined;
  /** In stream order. */
  devices: DeviceDescription[];
  /** What the file lacks, if vmferry made it from a partial one. The mark is vmferry's own; QEMU ignores it. */
  incomplete?: string;
}

/** Fields in order, then subsections: what QEMU calls a vmsd. */
export interface StateDescription {
  /** Empty for devices of the old style, and for NULL pointers as QEMU 7.2 describes them. */
  vmsdName: string;
  version: number | undefined;
  fields: FieldDescription[];
  /** The subsections that were sent. */
  subsections: StateDescription[];
}

export interface DeviceDescription extends StateDescription {
  /** idstr of the section. */
  name: string;
  instanceId: number;
}

/** A field of a device, as the VM description lists it. */
export interface FieldDescription {
  name: string;
  /** QEMU's word for the type: `uint32`, `struct`, `qtailq`, `buffer`, … */
  type: string;
  /** Bytes of the field, or of its first element. Undefined if the JSON has no plausible size. */
  size: number | undefined;
  /** Number of elements, if one description stands for all of them (`array_len`). */
  arrayLength: number | undefined;
  /** Position in its array, if each element has its own description. */
  index: number | undefined;
  /** One description for struct, vstruct and tmp; one per element for qtailq, qlist and gtree. */
  nested: StateDescription[];
}
