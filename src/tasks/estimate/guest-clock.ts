/**
 * How long a guest has run. QEMU stops this clock together with the guest, and saves it as `cpu_clock_offset` in the section
 * `timer`. The difference between two saves of a guest is the time that it ran in between (found by experiment).
 */

import { decodeDevices } from '../../store/devices.ts';
import type { DeviceSection } from '../../vm/flow.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';

/** Whether a section has the clock. */
export const hasGuestClock = ({ name }: Pick<DeviceSection, 'name'>): boolean => name === 'timer';

/** The clock in ms; undefined if its section was not kept or is not described. */
export function guestClock({ devices, description }: Pick<SavedVm, 'devices' | 'description'>): number | undefined {
  const [timer] = decodeDevices({ devices: devices.filter(hasGuestClock), description });
  const value = timer?.state?.fields.find(({ name }) => name === 'cpu_clock_offset')?.value;
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) / 1e6 : undefined;
}
