/** Guest-physical memory by address, in parts that each lie in one RAM block. */
import type { RamReader } from '../../vm/ram-store.ts';
import type { PhysicalRange } from '../extract/memory-map.ts';
import { readPart } from '../extract/range.ts';

export class PhysicalRam {
  readonly #ram: RamReader;
  /** Ascending and separate. */
  readonly ranges: readonly PhysicalRange[];

  constructor(ram: RamReader, ranges: readonly PhysicalRange[]) {
    this.#ram = ram;
    this.ranges = ranges;
  }

  /** Bytes of all ranges. */
  get bytes(): number {
    return this.ranges.reduce((sum, { length }) => sum + length, 0);
  }

  /** The parts of a range that are memory, ascending. */
  *parts(address: number, length: number): Generator<PhysicalRange, void> {
    const end = address + length;
    for (let i = this.#firstFrom(address); i < this.ranges.length; i++) {
      const range = this.ranges[i] as PhysicalRange;
      if (range.start >= end) return;
      const start = Math.max(address, range.start);
      const until = Math.min(end, range.start + range.length);
      yield { start, length: until - start, block: range.block, offset: range.offset + start - range.start };
    }
  }

  /** Reads a range. Where there is no memory, there are zeros. */
  async read(address: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (const { start, length: count, block, offset } of this.parts(address, length)) {
      let at = start - address;
      for await (const piece of readPart(this.#ram, block, offset, count)) {
        if (piece.bytes !== undefined) bytes.set(piece.bytes, at);
        at += piece.length;
      }
    }
    return bytes;
  }

  /** Reads a range. Undefined if some of it is not memory. */
  async view(address: number, length: number): Promise<DataView | undefined> {
    let end = address;
    for (const part of this.parts(address, length)) {
      if (part.start !== end) return undefined;
      end += part.length;
    }
    return end === address + length ? new DataView((await this.read(address, length)).buffer) : undefined;
  }

  /** The index of the first range that ends after an address. */
  #firstFrom(address: number): number {
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { start, length } = this.ranges[middle] as PhysicalRange;
      if (start + length <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
