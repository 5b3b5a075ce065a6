/** The page mixes: the changes between an old page and a new one. Seeded, so every run sees the same pages. */
export const PAGE = 4096;

export type Random = (below: number) => number;

/** A random source with a fixed seed (xorshift32): an integer below n. */
export function seeded(seed: number): Random {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}

export interface Pattern {
  name: string;
  /** Changes `page` in place; every byte it touches gets another value. */
  change(page: Uint8Array, random: Random): void;
  /** The encoding does not fit, or the pages are equal: nothing to decode. */
  isEmpty?: boolean;
}

function flip(page: Uint8Array, from: number, length: number, random: Random): void {
  for (let at = from, end = Math.min(page.length, from + length); at < end; at++) page[at]! ^= 1 + random(255);
}

/** Runs of `shortest` to `longest` bytes with such gaps between them. */
function runs(page: Uint8Array, random: Random, shortest: number, longest: number, gap: number, widest: number): void {
  const between = (low: number, high: number) => low + random(high - low + 1);
  for (let at = random(widest); at < page.length; ) {
    const length = between(shortest, longest);
    flip(page, at, length, random);
    at += length + between(gap, widest);
  }
}

export const patterns: Pattern[] = [
  { name: 'equal pages', change() {}, isEmpty: true },
  { name: 'one byte', change: (page, random) => flip(page, random(PAGE), 1, random) },
  { name: 'one word of 8 B', change: (page, random) => flip(page, 8 * random(PAGE / 8), 8, random) },
  {
    name: '16 words of 8 B',
    change(page, random) {
      for (let i = 0; i < 16; i++) flip(page, i * 256 + 8 * random(31), 8, random);
    },
  },
  {
    name: '64 single bytes',
    change(page, random) {
      for (let i = 0; i < 64; i++) flip(page, i * 64 + random(63), 1, random);
    },
  },
  { name: 'runs of 1 to 8, gaps of 1 to 64', change: (page, random) => runs(page, random, 1, 8, 1, 64) },
  { name: 'runs of 1 to 8, gaps of 1 to 16', change: (page, random) => runs(page, random, 1, 8, 3, 16) },
  { name: 'runs of 16 to 64, gaps of 16 to 64', change: (page, random) => runs(page, random, 16, 64, 16, 64) },
  { name: 'runs of 64 to 300, gaps of 64 to 300', change: (page, random) => runs(page, random, 64, 300, 64, 300) },
  {
    name: 'low 3 bytes of each word',
    change(page, random) {
      for (let at = 0; at < PAGE; at += 8) flip(page, at, 3, random);
    },
  },
  { name: 'a run of 512', change: (page, random) => flip(page, random(PAGE - 512), 512, random) },
  { name: 'a run of 3000', change: (page, random) => flip(page, random(PAGE - 3000), 3000, random) },
  { name: 'all but the first 16', change: (page, random) => flip(page, 16, PAGE - 16, random) },
  {
    name: 'every other byte (overflow)',
    change(page, random) {
      for (let at = 0; at < PAGE; at += 2) flip(page, at, 1, random);
    },
    isEmpty: true,
  },
  { name: 'every byte (overflow)', change: (page, random) => flip(page, 0, PAGE, random), isEmpty: true },
];

/** Of 8 pages, 2 are equal, 1 changes in every byte, and the rest change a little; 1 old page in 4 is zero. */
export function changeMixed(page: Uint8Array, index: number, random: Random): void {
  const order = [0, 14, 2, 3, 0, 5, 4, 7];
  patterns[order[index % order.length]!]!.change(page, random);
}
