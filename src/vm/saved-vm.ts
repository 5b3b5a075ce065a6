/** A SavedVm: a migration at rest, what is left when everything has arrived. Every output starts from one. */

import type { Configuration, Description, DeviceSection, Section, SectionKind } from './flow.ts';
import type { RamBlock } from './ram-block.ts';
import type { RamReader } from './ram-store.ts';

/** How a stream is put together, as far as whoever writes it again must know. */
export interface Framing {
  /** Section id of `ram`. Undefined: the stream has no such section. */
  ramId: number | undefined;
  /** Sections end with footers. */
  footers: boolean;
  /** The stream says where the source switches over (SWITCHOVER_START). */
  switchoverStart: boolean;
}

/** A device's state, as far as it is written. */
export type WritableDevice = Pick<DeviceSection, 'kind' | 'id' | 'name' | 'instanceId' | 'versionId' | 'data'>;

/** What a VM's devices say. */
export interface SavedDevices {
  /** In stream order; bodies are written as they are. */
  devices: readonly WritableDevice[];
  description?: Pick<Description, 'text'> | undefined;
}

/** What can be written: a `SavedVm`, or the parts of one that there are. */
export interface WritableVm extends Partial<SavedDevices> {
  ram: RamReader;
  configuration?: Configuration | undefined;
  /** Blocks that are listed, but whose pages are not sent (x-ignore-shared). */
  ignored?: readonly RamBlock[];
  framing?: Framing;
}

/** A VM at rest: RAM content, device states, and how its stream was framed. */
export interface SavedVm {
  /** Undefined for machine types before 2.4, which send none. */
  configuration: Configuration | undefined;
  ram: RamReader;
  /** Device sections in stream order; empty unless they were asked for. */
  devices: DeviceSection[];
  description: Description | undefined;
  /** Blocks of shared memory that the migration left out (x-ignore-shared): their content is not in `ram`. */
  ignored: readonly RamBlock[];
  /** Parts of iterables other than `ram`, such as dirty bitmaps, in stream order: where they are, not what is in them. */
  iterables: readonly Section[];
  framing: Framing;
}

/** A section of another iterable than RAM, from its type byte to its end, as it is to be written. */
export interface RawSection {
  kind: SectionKind;
  bytes: Uint8Array;
}
