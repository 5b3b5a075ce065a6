/** Bitmaps in the layout of QEMU and the kernels: bit i is bit i % 8 of byte i / 8. */

export function isBitSet(bitmap: Uint8Array, i: number): boolean {
  return (((bitmap[i >>> 3] as number) >> (i & 7)) & 1) === 1;
}
