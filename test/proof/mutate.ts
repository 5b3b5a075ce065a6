/** Seeded damage to a file, both accidental and malicious kinds. */

type Random = () => number;

const below = (random: Random, n: number) => Math.floor(random() * n);

/** Values that are often at the ends of ranges. */
const extremes = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0xffff_ffffn,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/**
 * Damages a copy of `bytes` at `points` (offsets where structures begin) or anywhere. Returns the copy and a
 * description.
 */
export function mutate(
  bytes: Uint8Array,
  points: readonly number[],
  random: Random,
): { bytes: Uint8Array; what: string } {
  const nearPoint = () => {
    const point = points[below(random, points.length)] ?? 0;
    return Math.min(bytes.length - 1, Math.max(0, point + below(random, 40) - 4));
  };
  const at = random() < 0.7 ? nearPoint() : below(random, bytes.length);
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  switch (below(random, 9)) {
    case 0:
      copy[at] = (copy[at] as number) ^ (1 << below(random, 8));
      return { bytes: copy, what: `bit flipped at ${at}` };
    case 1:
      copy[at] = below(random, 256);
      return { bytes: copy, what: `byte set at ${at}` };
    case 2: {
      const value = extremes[below(random, extremes.length)] as bigint;
      const width = [2, 4, 8][below(random, 3)] as 2 | 4 | 8;
      if (at + width > copy.length) return { bytes: copy.subarray(0, at), what: `cut at ${at}` };
      if (width === 2) view.setUint16(at, Number(value & 0xffffn));
      else if (width === 4) view.setUint32(at, Number(value & 0xffff_ffffn));
      else view.setBigUint64(at, value);
      return { bytes: copy, what: `be${width * 8} ${value} at ${at}` };
    }
    case 3: {
      const count = 1 + below(random, 16);
      copy.fill(random() < 0.5 ? 0 : 0xff, at, at + count);
      return { bytes: copy, what: `${count} bytes blanked at ${at}` };
    }
    case 4: {
      const count = 1 + below(random, 64);
      const shorter = new Uint8Array(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]));
      return { bytes: shorter, what: `${count} bytes removed at ${at}` };
    }
    case 5: {
      const insert = Uint8Array.from({ length: 1 + below(random, 64) }, () => below(random, 256));
      const longer = new Uint8Array(Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at)]));
      return { bytes: longer, what: `${insert.length} bytes inserted at ${at}` };
    }
    case 6: {
      const from = nearPoint();
      copy.copyWithin(at, from, from + 1 + below(random, 5000));
      return { bytes: copy, what: `bytes from ${from} copied to ${at}` };
    }
    case 7: {
      const count = 1 + below(random, 4);
      for (let i = 0; i < count; i++) copy[nearPoint()] = below(random, 256);
      return { bytes: copy, what: `${count} bytes set near structures` };
    }
    default: {
      const [a, b] = [nearPoint(), nearPoint()].sort((x, y) => x - y) as [number, number];
      const first = bytes.slice(a, b);
      const second = bytes.slice(b, b + first.length);
      copy.set(second, a);
      copy.set(first.subarray(0, copy.length - a - second.length), a + second.length);
      return { bytes: copy, what: `structures at ${a} and ${b} swapped` };
    }
  }
}
