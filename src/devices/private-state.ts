/**
 * Fields of a device's private type (docs/formats/devices.md, "Types of devices' own"). The bytes give a description such as
 * QEMU would have written, so that these fields are decoded, shown and found like all others.
 */
import type { StateDescription } from '../vm/description.ts';
import { buildLayout, type LayoutBuilder } from './layout-builder.ts';
import { drawMsixState } from './pci-state.ts';
import { describeVirtio } from './virtio-state.ts';

/** A field of a private type. */
export interface PrivateField {
  type: string;
  /** `vmsd_name` of the description that the field is in. */
  vmsdName: string;
  /** Its bytes. */
  bytes: DataView;
}

const drawings = new Map<string, (whole: LayoutBuilder) => void>([
  ['pci irq state', (whole) => whole.add('intx', 'uint32', 4, 4)],
  ['msix state', drawMsixState],
  // Only an empty list: requests in flight are not decoded.
  ['scsi-requests', (whole) => whole.insist(whole.count8('end') === 0)],
  // The 128 bits of a vector register, the upper half first.
  ['avr', (whole) => whole.u64('high').u64('low')],
  // An entry of the segment lookaside buffer.
  ['slbe', (whole) => whole.u64('esid').u64('vsid')],
]);

/** Describes the bytes of a private type; undefined if the type is unknown or the bytes do not fit it. */
export function describePrivate({ type, vmsdName, bytes }: PrivateField): StateDescription | undefined {
  if (type === 'virtio') return describeVirtio(bytes, vmsdName);
  const draw = drawings.get(type);
  return draw === undefined ? undefined : buildLayout(bytes, '', draw);
}
