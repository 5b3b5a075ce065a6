/**
 * A Guest: what migrates. Its pages may change while they are read, until it is stopped. A `SavedVm` is a stopped one
 * ({@link stoppedGuest}).
 */
import type { Configuration } from './flow.ts';
import type { PageBitmap } from './page-bitmap.ts';
import type { RamBlock } from './ram-block.ts';
import type { RamReader } from './ram-store.ts';
import type { Framing, SavedDevices, WritableVm } from './saved-vm.ts';

/** A RAM block of a guest. */
export interface GuestBlock extends RamBlock {
  /**
   * Where it begins in the guest's RAM addresses, in which QEMU places every block for itself, in bytes: a multiple of the
   * page size. Not a guest-physical address; the stream does not say it.
   */
  readonly ramAddress: number;
}

/** A guest that migrates while it runs. */
export interface Guest {
  /** Undefined for machine types before 2.4, which send none. */
  readonly configuration: Configuration | undefined;
  /** Those of `ram`, with their RAM addresses. */
  readonly blocks: readonly GuestBlock[];
  /** Content as it is now. */
  readonly ram: RamReader;
  /** Blocks that are listed, but whose pages are not sent (x-ignore-shared). */
  readonly ignored?: readonly RamBlock[];
  /** Default: `ram` has section id 1, and sections have footers. */
  readonly framing?: Framing;
  /** Sets the bits of all pages that were written since the last call, or since the first; `dirty` goes by block index. */
  syncDirty(dirty: readonly PageBitmap[]): Promise<void> | void;
  /** Stops the guest: from now on it writes nothing. */
  stop(): Promise<void> | void;
  /** The state of its devices, once it is stopped. */
  saveDevices(): Promise<SavedDevices> | SavedDevices;
}

/** A VM at rest as a guest that was stopped before. Its blocks lie one behind the other in RAM addresses. */
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
