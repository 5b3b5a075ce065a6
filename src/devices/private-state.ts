/**
 * Fields whose type only their device knows (docs/formats/devices.md, "Types of devices' own"): from the bytes, a
 * description as QEMU would have given it. So they are decoded, shown and found as all others.
 */
import type { StateDescription } from '../vm/description.ts';
import { buildLayout, type LayoutBuilder } from './layout-builder.ts';
import { drawMsixState } from './pci-state.ts';
import { describeVirtio } from './virtio-state.ts';

/** A field of such a type. */
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
  // A list that ends at once: what requests in flight are made of is not decoded.
  ['scsi-requests', (whole) => whole.insist(whole.count8('end') === 0)],
  // The 128 bits of a vector register, the upper half first.
  ['avr', (whole) => whole.u64('high').u64('low')],
  // An entry of the segment lookaside buffer.
  ['slbe', (whole) => whole.u64('esid').u64('vsid')],
]);

/** Undefined: the type is not known, or the bytes are not what it has. */
export function describePrivate({ type, vmsdName, bytes }: PrivateField): StateDescription | undefined {
  if (type === 'virtio') return describeVirtio(bytes, vmsdName);
  const draw = drawings.get(type);
  return draw === undefined ? undefined : buildLayout(bytes, '', draw);
}
