/** A SavedVm: a migration at rest, what is left when everything has arrived. Every output starts from one. */
import type { Configuration, Description, DeviceSection } from './flow.ts';
import type { RamBlock } from './ram-block.ts';
import type { RamReader } from './ram-store.ts';

export interface SavedVm {
  /** Undefined for machine types before 2.4, which send none. */
  configuration: Configuration | undefined;
  ram: RamReader;
  /** Device sections in stream order; empty unless they were asked for. */
  devices: DeviceSection[];
  description: Description | undefined;
  /** Blocks of shared memory that the migration left out (x-ignore-shared): their content is not in `ram`. */
  ignored: readonly RamBlock[];
}
