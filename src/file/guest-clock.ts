/**
 * How long a guest has run: the clock that QEMU stops with it, and saves as `cpu_clock_offset` of the section `timer`
 * (seen: of two saves of one guest it tells by how much it ran between them).
 */
import type { SavedVm } from '../vm/saved-vm.ts';
import { decodeDevices } from './devices.ts';

/** The clock in ms; undefined if the devices were not kept, or their description does not tell. */
export function guestClock({ devices, description }: Pick<SavedVm, 'devices' | 'description'>): number | undefined {
  const [timer] = decodeDevices({ devices: devices.filter(({ name }) => name === 'timer'), description });
  const value = timer?.state?.fields.find(({ name }) => name === 'cpu_clock_offset')?.value;
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) / 1e6 : undefined;
}
