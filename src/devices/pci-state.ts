/**
 * PCI state that the VM description gives only as bytes (docs/formats/devices.md, "PCI"): the PCI part of a virtio device,
 * and the MSI-X table. The PCI standard defines the layout of configuration space.
 */
import type { LayoutBuilder } from './layout-builder.ts';

const msixEntry = 16;
const msixCapability = 0x11;

/** Adds version, configuration space and interrupt state. @throws LayoutMismatch if the bytes are something else */
export function addPciDevice(whole: LayoutBuilder, configurationBytes: number): void {
  whole.insist(whole.count32('pci.version_id') === 2);
  whole.add('pci.config', 'pci config', configurationBytes).add('pci.irq_state', 'uint32', 4, 4);
}

/** Vectors of the MSI-X table, from the capability in the configuration space that was just added; 0 without one. */
export function msixVectors({ view, at }: LayoutBuilder, configurationBytes: number): number {
  const start = at - configurationBytes - 16;
  let pointer = view.getUint8(start + 0x34);
  // A longer list leads back to itself.
  for (let i = 0; i < 48 && pointer >= 0x40 && pointer < 0xfc; i++) {
    if (view.getUint8(start + pointer) === msixCapability)
      return (view.getUint16(start + pointer + 2, true) & 0x7ff) + 1;
    pointer = view.getUint8(start + pointer + 1);
  }
  return 0;
}

/** Adds the table as the guest sees it, and a pending bit for each vector. */
export function addMsix(whole: LayoutBuilder, vectors: number): LayoutBuilder {
  whole.array('msix.table', vectors, (entry) => {
    entry.add('address', 'le64', 8).add('data', 'le32', 4).add('control', 'le32', 4);
  });
  return whole.buffer('msix.pending', Math.ceil(vectors / 8));
}

/** A field of type `msix state` holds only the table, so its size gives the number of vectors. */
export function drawMsixState(whole: LayoutBuilder): void {
  const vectors = Math.floor((whole.left * 8) / (msixEntry * 8 + 1));
  addMsix(whole, vectors);
}
