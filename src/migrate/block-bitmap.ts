/** A dirty bitmap of a disk: one bit for `granularity` bytes, the lowest bit of a byte first. Bits are in memory. */

/** What a bitmap is made of. */
export interface BlockBitmapOptions {
  name: string;
  /** Bytes of the disk for each bit: a power of two from 512. */
  granularity: number;
  /** Whether it records. */
  isEnabled: boolean;
  isPersistent: boolean;
  diskSize: number;
}

/** What of a disk was written since it was made or cleared. */
export class BlockBitmap {
  readonly name: string;
  readonly granularity: number;
  readonly diskSize: number;
  readonly bits: Uint8Array;
  isEnabled: boolean;
  isPersistent: boolean;
  /** A migration uses it. */
  isBusy = false;
  /** Whoever had the image open did not close it, so its bits are not known. It can only be removed. */
  isInconsistent = false;

  constructor({ name, granularity, isEnabled, isPersistent, diskSize }: BlockBitmapOptions) {
    this.name = name;
    this.granularity = granularity;
    this.isEnabled = isEnabled;
    this.isPersistent = isPersistent;
    this.diskSize = diskSize;
    this.bits = new Uint8Array(Math.ceil(Math.ceil(diskSize / granularity) / 8));
  }

  /** Marked bytes, in whole granules. */
  get count(): number {
    let ones = 0;
    for (const byte of this.bits) for (let rest = byte; rest !== 0; rest &= rest - 1) ones++;
    return ones * this.granularity;
  }

  /** Marks the bytes of the disk from `start` up to `end`. */
  mark(start: number, end: number): void {
    const last = Math.ceil(Math.min(end, this.diskSize) / this.granularity);
    for (let bit = Math.floor(start / this.granularity); bit < last; bit++) {
      this.bits[bit >> 3] = (this.bits[bit >> 3] as number) | (1 << (bit & 7));
    }
  }

  /** Marks nothing. */
  clear(): void {
    this.bits.fill(0);
  }

  /** Marks what another bitmap has marked. @throws Error with QEMU's text for one of another size */
  merge(other: BlockBitmap): void {
    if (other.diskSize !== this.diskSize) {
      const sizes = `destination size is ${this.diskSize}, source size is ${other.diskSize}`;
      throw new Error(`Bitmaps are of different sizes (${sizes}) and can't be merged`);
    }
    if (other.granularity === this.granularity) {
      for (const [i, byte] of other.bits.entries()) if (byte !== 0) this.bits[i] = (this.bits[i] as number) | byte;
      return;
    }
    for (const [i, byte] of other.bits.entries()) {
      for (let bit = 0; bit < 8; bit++) {
        const granule = 8 * i + bit;
        if ((byte >> bit) & 1) this.mark(granule * other.granularity, (granule + 1) * other.granularity);
      }
    }
  }

  /** @throws Error with QEMU's text while a migration uses it, or if its bits are not known */
  requireUsable(): void {
    this.requireIdle();
    if (this.isInconsistent) throw new Error(`Bitmap '${this.name}' is inconsistent and cannot be used`);
  }

  /** @throws Error with QEMU's text while a migration uses it */
  requireIdle(): void {
    if (!this.isBusy) return;
    throw new Error(`Bitmap '${this.name}' is currently in use by another operation and cannot be used`);
  }
}
