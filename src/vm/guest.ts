/** A Guest: what migrates. */
import type { RamBlock } from './ram-block.ts';

/** A RAM block of a guest. */
export interface GuestBlock extends RamBlock {
  /**
   * Where it begins in the guest's RAM addresses, in which QEMU places every block for itself, in bytes: a multiple of the
   * page size. Not a guest-physical address; the stream does not say it.
   */
  readonly ramAddress: number;
}
