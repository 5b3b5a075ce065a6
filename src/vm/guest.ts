/**
 * A Guest is what migrates. Its pages may change while they are read, until it is stopped. A `SavedVm` is a stopped
 * guest ({@link stoppedGuest}).
 */
import type { Configuration } from './flow.ts';
import type { PageBitmap } from './page-bitmap.ts';
import type { RamBlock } from './ram-block.ts';
import type { RamReader } from './ram-store.ts';
import type { Framing, SavedDevices, WritableVm } from './saved-vm.ts';

/** A RAM block of a guest. */
export interface GuestBlock extends RamBlock {
  /**
   * Where the block begins in the guest's RAM addresses, in bytes: a multiple of the page size. QEMU assigns these
   * addresses to blocks internally. They are not guest-physical, and the stream does not contain them.
   */
  readonly ramAddress: number;
}

/** Pages that were written since they were last asked for. */
export interface DirtyTracking {
  /** Sets the bits of these pages, and forgets them. `dirty` is indexed by block. */
  sync(dirty: readonly PageBitmap[]): Promise<void>;
  /** Ends the tracking. */
  close(): void;
}

/** A guest that migrates while it runs. */
export interface Guest {
  /** Undefined for machine types before 2.4, which send none. */
  readonly configuration: Configuration | undefined;
  /** The blocks of `ram`, with their RAM addresses. */
  readonly blocks: readonly GuestBlock[];
  /** The present content. */
  readonly ram: RamReader;
  /** Blocks that are listed but not sent (x-ignore-shared). */
  readonly ignored?: readonly RamBlock[];
  /** Default: `ram` has section id 1, and sections have footers. */
  readonly framing?: Framing;
  /**
   * Sets the bits of all pages written since the last call, or since the start for the first call. `dirty` is indexed
   * by block.
   */
  syncDirty(dirty: readonly PageBitmap[]): Promise<void> | void;
  /** Stops the guest. It writes nothing afterwards. */
  stop(): Promise<void> | void;
  /** The state of its devices. The guest must be stopped. */
  saveDevices(): Promise<SavedDevices> | SavedDevices;
}

/** Presents a VM at rest as a stopped guest. Its blocks follow each other in RAM addresses. */
export function stoppedGuest({ ram, devices = [], description, ignored, framing, configuration }: WritableVm): Guest {
  let end = 0;
  return {
    configuration,
    blocks: ram.blocks.map((block) => {
      const ramAddress = end;
      end += block.usedLength;
      return { ...block, ramAddress };
    }),
    ram,
    ...(ignored === undefined ? {} : { ignored }),
    ...(framing === undefined ? {} : { framing }),
    syncDirty() {},
    stop() {},
    saveDevices: () => ({ devices, description }),
  };
}
