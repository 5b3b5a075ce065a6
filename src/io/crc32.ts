/**
 * The CRC-32 of zip and gzip (polynomial 0xedb88320, reflected, inverted before and after), 8 bytes per step by eight
 * tables. The kernels have another, for pages in the arena. This one takes bytes of any length, in pieces.
 */

type Tables = [
  ...[Int32Array, Int32Array, Int32Array, Int32Array],
  ...[Int32Array, Int32Array, Int32Array, Int32Array],
];

let tables: Tables | undefined;

/** Made for the first checksum, since most programs that load this need none. */
function makeTables(): Tables {
  const made = Array.from({ length: 8 }, () => new Int32Array(256)) as unknown as Tables;
  const [first] = made;
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
    first[byte] = crc;
  }
  // Table k is the effect of a byte that is followed by k others.
  for (let k = 1; k < 8; k++) {
    for (let byte = 0; byte < 256; byte++) {
      const crc = made[k - 1]?.[byte] as number;
      (made[k] as Int32Array)[byte] = (crc >>> 8) ^ (first[crc & 0xff] as number);
    }
  }
  return made;
}

/** Computes the CRC-32 of bytes given in order. */
export class Crc32 {
  #crc = -1;

  update(bytes: Uint8Array): void {
    tables ??= makeTables();
    const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
    let crc = this.#crc;
    let at = 0;
    for (const end = bytes.length - 7; at < end; at += 8) {
      crc ^=
        (bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24);
      crc =
        (t7[crc & 0xff] as number) ^
        (t6[(crc >>> 8) & 0xff] as number) ^
        (t5[(crc >>> 16) & 0xff] as number) ^
        (t4[crc >>> 24] as number) ^
        (t3[bytes[at + 4] as number] as number) ^
        (t2[bytes[at + 5] as number] as number) ^
        (t1[bytes[at + 6] as number] as number) ^
        (t0[bytes[at + 7] as number] as number);
    }
    for (; at < bytes.length; at++) crc = (crc >>> 8) ^ (t0[(crc ^ (bytes[at] as number)) & 0xff] as number);
    this.#crc = crc;
  }

  /** The CRC-32 of the bytes so far. */
  get value(): number {
    return ~this.#crc >>> 0;
  }
}
