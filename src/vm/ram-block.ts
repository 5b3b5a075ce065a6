/**
 * A RAM block: one named, contiguous piece of a guest's memory. Facts: docs/formats/ram.md, "The block list".
 */
export interface RamBlock {
  /** Position in the stream's block list, from 0. */
  readonly index: number;
  /** QEMU's name of the block, such as `pc.ram`. */
  readonly idstr: string;
  /** Bytes in use; a multiple of `pageSize`. */
  readonly usedLength: number;
  /** Target page size in bytes: the unit in which pages travel. */
  readonly pageSize: number;
  /** Size in bytes of the host pages behind the block, if the stream states it (huge pages with postcopy). */
  readonly hostPageSize?: number;
  /** Guest-physical address, if the stream states it (capability x-ignore-shared). */
  readonly guestAddress?: bigint;
  /** Its places in a mapped-ram file. */
  readonly mapped?: MappedPlace;
}

/** Where a mapped-ram file keeps a block: absolute byte offsets in the file. */
export interface MappedPlace {
  readonly bitmapOffset: number;
  readonly bitmapLength: number;
  readonly pagesOffset: number;
}

/** The number of pages of a block. */
export function pageCount(block: RamBlock): number {
  return block.usedLength / block.pageSize;
}

/**
 * Requires two lists of blocks to be the same: names, lengths and page sizes, in order.
 * @param what names the second list in the error
 * @throws RangeError
 */
export function requireSameBlocks(expected: readonly RamBlock[], got: readonly RamBlock[], what: string): void {
  const list = (blocks: readonly RamBlock[]) =>
    blocks
      .map(({ idstr, usedLength, pageSize }) => `"${idstr}" of ${usedLength} bytes in pages of ${pageSize}`)
      .join(', ');
  if (list(got) === list(expected)) return;
  throw new RangeError(`expected ${what} with the RAM blocks ${list(expected)}, got ${list(got)}`);
}

/** The largest guest accepted, in bytes of RAM: 64 TiB. */
export const maxRamBytes = 2 ** 46;
