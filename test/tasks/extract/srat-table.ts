/** Makes a SRAT for tests. */

export interface Entry {
  node: number;
  base: number;
  length: number;
  flags?: number;
}

/** An SRAT of these entries, as QEMU writes it. */
export function srat(entries: readonly Entry[], more: number[] = []): Buffer {
  const table = Buffer.alloc(48 + 40 * entries.length);
  table.write('SRAT', 0, 'latin1');
  for (const [i, { node, base, length, flags = 1 }] of entries.entries()) {
    const at = 48 + 40 * i;
    table[at] = 1;
    table[at + 1] = 40;
    table.writeUInt32LE(node, at + 2);
    table.writeBigUInt64LE(BigInt(base), at + 8);
    table.writeBigUInt64LE(BigInt(length), at + 16);
    table.writeUInt32LE(flags, at + 28);
  }
  const whole = Buffer.concat([table, Buffer.from(more)]);
  whole.writeUInt32LE(whole.length, 4);
  return whole;
}
