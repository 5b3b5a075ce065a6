/** A SavedVm is a migration at rest: what remains when everything has arrived. Every output starts from one. */

import type { Configuration, Description, DeviceSection, Section, SectionKind } from './flow.ts';
import type { RamBlock } from './ram-block.ts';
import type { RamReader } from './ram-store.ts';

/** How a stream was put together, as far as a writer must know it. */
export interface Framing {
  /** Section id of `ram`. Undefined: the stream has no such section. */
  ramId: number | undefined;
  /** Sections end with footers. */
  footers: boolean;
  /** The stream marks the switchover of the source (SWITCHOVER_START). */
  switchoverStart: boolean;
}

/** The parts of a device's state that are written. */
export type WritableDevice = Pick<DeviceSection, 'kind' | 'id' | 'name' | 'instanceId' | 'versionId' | 'data'>;

/** What a VM's devices saved. */
export interface SavedDevices {
  /** The devices in stream order. Their bodies are written unchanged. */
  devices: readonly WritableDevice[];
  description?: Pick<Description, 'text'> | undefined;
}

/** Input of the writers: a `SavedVm`, or the parts of one that exist. */
export interface WritableVm extends Partial<SavedDevices> {
  ram: RamReader;
  configuration?: Configuration | undefined;
  /** Blocks that are listed but not sent (x-ignore-shared). */
  ignored?: readonly RamBlock[];
  framing?: Framing;
}

/** A VM at rest: RAM content, device states, and how its stream was framed. */
export interface SavedVm {
  /** Undefined for machine types before 2.4, which send none. */
  configuration: Configuration | undefined;
  ram: RamReader;
  /** Device sections in stream order; empty if they were not requested. */
  devices: DeviceSection[];
  description: Description | undefined;
  /** Blocks of shared memory that the migration left out (x-ignore-shared). Their content is not in `ram`. */
  ignored: readonly RamBlock[];
  /**
   * Sections of iterables other than `ram`, such as dirty bitmaps, in stream order: their places, not their content.
   */
  iterables: readonly Section[];
  framing: Framing;
}

/** A section of an iterable other than RAM, to be written as it is, from its type byte to its end. */
export interface RawSection {
  kind: SectionKind;
  bytes: Uint8Array;
  /** The bytes after `bytes` of a section that is not held in memory, in order. */
  rest?: () => AsyncIterable<Uint8Array>;
  /** An END that in postcopy comes after the pages, when the guest runs at the destination. Default false. */
  isPostcopiable?: boolean;
}
