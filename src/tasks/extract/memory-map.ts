/**
 * A map of guest-physical addresses, made by painting: later ranges cover earlier ones, like QEMU's memory regions. For
 * each byte it states which byte of which RAM block is visible there, if any.
 */
import type { RamBlock } from '../../vm/ram-block.ts';

/** Bytes of a RAM block at a guest-physical address. */
export interface PhysicalRange {
  /** Guest-physical address of the first byte. */
  start: number;
  /** Bytes. */
  length: number;
  block: RamBlock;
  /** Their offset in the block, in bytes. */
  offset: number;
  /** Flash memory: the guest can read it, but `dump-guest-memory` does not treat it as memory. */
  isFlash?: true;
}

export class MemoryMap {
  /** Ascending and separate. */
  #ranges: PhysicalRange[] = [];

  /** Ascending ranges. Neighbours that are contiguous in the same block are one range. */
  get ranges(): PhysicalRange[] {
    const merged: PhysicalRange[] = [];
    for (const range of this.#ranges) {
      const last = merged.at(-1);
      if (last !== undefined && continues(last, range)) last.length += range.length;
      else merged.push({ ...range });
    }
    return merged;
  }

  /** Shows bytes of a block. */
  paint(range: PhysicalRange): void {
    if (range.length <= 0) return;
    this.clear(range.start, range.length);
    const at = this.#ranges.findIndex(({ start }) => start > range.start);
    this.#ranges.splice(at === -1 ? this.#ranges.length : at, 0, range);
  }

  /** Shows nothing. */
  clear(start: number, length: number): void {
    const end = start + length;
    this.#ranges = this.#ranges.flatMap((range) => {
      const left = { ...range, length: Math.min(range.length, start - range.start) };
      const skipped = Math.max(0, end - range.start);
      const right = { ...range, start: range.start + skipped, length: range.length - skipped };
      right.offset += skipped;
      if (skipped === 0 || range.start + range.length <= start) return [range];
      return [left, right].filter((part) => part.length > 0);
    });
  }

  /** Whether any of these bytes shows something. */
  has(start: number, length: number): boolean {
    return this.#ranges.some((range) => range.start < start + length && start < range.start + range.length);
  }
}

function continues(before: PhysicalRange, range: PhysicalRange): boolean {
  return (
    before.block === range.block &&
    before.isFlash === range.isFlash &&
    before.start + before.length === range.start &&
    before.offset + before.length === range.offset
  );
}
