/**
 * The addresses of memory devices in the XML of a libvirt image (docs/formats/libvirt.md, "The domain XML"). libvirt
 * knows them from QEMU, so they are those of the running guest.
 */
import { type DomainMemoryDevice, readDomain } from '../../read/container/domain-xml.ts';
import type { StatedDevice } from './memory-devices.ts';

/** None if the XML is not well-formed. */
export function readConfigured(xml: string): StatedDevice[] {
  try {
    return readDomain(xml).memoryDevices.flatMap(findAddress);
  } catch (error) {
    if (error instanceof RangeError) return [];
    throw error;
  }
}

/** libvirt names the memory backend after the device, and a DIMM after its slot. An image may omit the name. */
function findAddress({ model, alias, slot, base }: DomainMemoryDevice): StatedDevice[] {
  const isSlotted = (model === 'dimm' || model === 'nvdimm') && slot !== undefined;
  const name = alias ?? (isSlotted ? `${model}${slot}` : undefined);
  const address = Number(base);
  if (name === undefined || base === undefined || !Number.isSafeInteger(address)) return [];
  return [`mem${name}`, `/objects/mem${name}`].map((block) => ({ block, address }));
}
