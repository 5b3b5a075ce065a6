/**
 * How long a guest has run: the clock that QEMU stops with it, and saves as `cpu_clock_offset` of the section `timer`
 * (seen: of two saves of one guest it tells by how much it ran between them).
 */

import { decodeDevices } from '../../store/devices.ts';
import type { DeviceSection } from '../../vm/flow.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';

/** Whether a section has the clock. */
export const hasGuestClock = ({ name }: Pick<DeviceSection, 'name'>): boolean => name === 'timer';

/** The clock in ms; undefined if its section was not kept, or its description does not tell. */
export function guestClock({ devices, description }: Pick<SavedVm, 'devices' | 'description'>): number | undefined {
  const [timer] = decodeDevices({ devices: devices.filter(hasGuestClock), description });
  const value = timer?.state?.fields.find(({ name }) => name === 'cpu_clock_offset')?.value;
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) / 1e6 : undefined;
}
