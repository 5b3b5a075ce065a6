/** A SavedVm: a migration at rest. Every output starts from one. */
import type { Configuration, Description, DeviceSection } from './flow.ts';
import type { RamStore } from './ram-store.ts';

export interface SavedVm {
  /** Undefined for machine types before 2.4, which send none. */
  configuration: Configuration | undefined;
  ram: RamStore;
  devices: DeviceSection[];
  description: Description | undefined;
}
